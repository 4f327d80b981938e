"use strict";
for (const article of document.querySelectorAll("article")) {
  const wanted = {};
  const show = () => {
    for (const group of article.querySelectorAll(".group")) {
      let any = false;
      for (const figure of group.querySelectorAll("figure")) {
        figure.hidden = Boolean(wanted.verdict) && figure.dataset.verdict !== wanted.verdict;
        any = any || !figure.hidden;
      }
      group.hidden = !any || (Boolean(wanted.group) && group.dataset.group !== wanted.group);
    }
  };
  for (const select of article.querySelectorAll("select")) {
    select.addEventListener("change", () => { wanted[select.dataset.filter] = select.value; show(); });
  }
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".pair")) {
  button.addEventListener("click", () => {
    dialog.querySelector("div").replaceChildren(...[...button.children].map((image) => image.cloneNode()));
    dialog.querySelector("p").textContent = button.parentElement.querySelector("figcaption").innerText;
    dialog.showModal();
  });
}
