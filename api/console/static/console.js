// Comforts, none of which a page needs: a question before an act, and one press of a button at a time.
"use strict";
document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = form.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    return;
  }
  if (form.method === "post") {
    for (const button of form.querySelectorAll("button")) button.disabled = true;
  }
});
// A page that comes back from the browser's own cache has its buttons again.
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form button")) button.disabled = false;
});
// Slash leads to the search box, as in many tools.
document.addEventListener("keydown", (event) => {
  const box = document.getElementById("q");
  if (event.key !== "/" || !box || event.target.closest("input, textarea, select")) return;
  event.preventDefault();
  box.focus();
});
// A page of what goes on shows it anew, unless somebody is writing in a form of it.
const main = document.getElementById("main");
const seconds = Number(main && main.dataset.refresh);
if (seconds > 0) {
  const timer = setInterval(() => {
    if (!document.hidden && !document.activeElement.closest("input, textarea, select")) window.location.reload();
  }, seconds * 1000);
  // A reload would drop the form that is on its way.
  document.addEventListener("submit", () => clearInterval(timer));
}
