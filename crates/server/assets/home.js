// Adds a "Copy" button beside the short link and the delete token. The page is whole without it.
async function copy(source) {
  if (navigator.clipboard) return navigator.clipboard.writeText(source.dataset.copy);
  // Plain http has no clipboard object; the selection is the older way, and helps the eye if it fails too.
  getSelection().selectAllChildren(source);
  if (!document.execCommand("copy")) throw new Error("copy was refused");
}

for (const source of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  let timer;
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-describedby", source.id);
  button.addEventListener("click", async () => {
    try {
      await copy(source);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    clearTimeout(timer);
    timer = setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  source.after(button);
}

// Paste, Enter, Enter: the link is made and copied without leaving the keyboard.
document.querySelector(".short .copy")?.focus();
