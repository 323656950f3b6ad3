// A menu is a <details>: it closes when something else is chosen, when the focus leaves it, and by Escape, which brings the focus back.
export function prepareMenus(root) {
  root.addEventListener("click", (event) => {
    for (const menu of root.querySelectorAll("details.menu[open]")) {
      if (menu.contains(event.target) && !event.target.closest("ul")) continue;
      const hadFocus = menu.contains(document.activeElement);
      menu.open = false;
      // What is hidden can't keep it.
      if (hadFocus) menu.querySelector("summary").focus();
    }
  });
  root.addEventListener("focusout", (event) => {
    const menu = event.target.closest?.("details.menu[open]");
    // Nothing has it where something is clicked that takes none, or is moved.
    if (menu && event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of root.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}
