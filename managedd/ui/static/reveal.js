// What is shown once: the answer of a form with `data-reveal`, the id of the element whose `data-member`s it fills.
document.addEventListener("call:done", ({ detail: { form, answer } }) => {
  const place = form?.dataset.reveal && document.getElementById(form.dataset.reveal);
  if (!place) return;
  for (const each of place.querySelectorAll("[data-member]")) each.textContent = answer?.[each.dataset.member] ?? "";
  place.hidden = false;
  form.reset();
  place.querySelector("button")?.focus();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const made = button.parentElement.querySelector(`[data-member="${button.dataset.copy}"]`);
  try {
    await navigator.clipboard.writeText(made.textContent);
    button.textContent = "Copied";
  } catch {
    // Only pages of HTTPS and of this computer may: then it is marked, to be copied by hand.
    getSelection().selectAllChildren(made);
  }
});
