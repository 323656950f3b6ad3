// `prefect cloud login` waits on this computer: it is sent a key, or the word that there will be none. Nothing else of this page leaves it.
document.addEventListener("call:done", ({ detail: { form, answer } }) => {
  if (form?.dataset.handOver && answer?.key) send(form.dataset.handOver, "success", { api_key: answer.key });
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-hand-over]:not([data-call])");
  if (!form) return;
  event.preventDefault();
  send(form.dataset.handOver, "success", { api_key: form.elements.key.value.trim() });
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-refuse]");
  if (button) send(button.dataset.refuse, "failure", { reason: "It was refused in the browser." });
});

async function send(callback, how, body) {
  const told = document.getElementById("handed-over");
  try {
    const answer = await fetch(`${callback}/${how}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${answer.status}`);
    told.textContent = how === "success" ? "Done: the command has its key. You can close this page." : "Refused. You can close this page.";
    document.getElementById("asked").hidden = true;
  } catch {
    told.textContent = `The command does not answer at ${callback}: has it ended? A key that was made just now is in Settings, Keys: revoke it there.`;
  }
  told.focus();
}
