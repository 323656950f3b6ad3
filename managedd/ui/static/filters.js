// A form that only chooses what is shown leaves what is empty out of the address.
document.addEventListener("formdata", (event) => {
  if (event.target.dataset.short === undefined) return;
  for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
});
