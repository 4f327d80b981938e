"use strict";
const FIRST = 12, MORE = 60;
const data = JSON.parse(document.getElementById("data").textContent);
const blocks = new Map();
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

function thumbnail(number) {
  const block = Math.floor(number / data.block);
  if (!blocks.has(block)) blocks.set(block, document.getElementById(`thumbnails-${block}`).textContent.split("\n"));
  return "data:image/webp;base64," + blocks.get(block)[number % data.block];
}

function original(number) { return data.files + "/" + encodeURIComponent(data.pictures[number]); }

function said(part, row) {
  const [, verdict, prompt, note, , , before, after] = row;
  return { prompt, before, after, verdict: part.verdicts[verdict], seeds: `${note}: ${before} → ${after}` };
}

function figure(part, at, open) {
  const row = part.rows[at], { prompt, before, after, verdict, seeds } = said(part, row), [one, other] = part.sides;
  const picture = (number, alt) => number === null ? "" :
    make("img", { src: thumbnail(number), alt, width: 64, height: 64, decoding: "async" });
  const pair = make("button", { type: "button", className: "pair", onclick: () => open(at) },
    picture(row[4], `${one}: ${before}`), picture(row[5], `${other}: ${after}`));
  pair.setAttribute("aria-label", `Enlarge: ${prompt}; ${one} ${before}, ${other} ${after}; ${verdict}`);
  const sides = make("div", { className: "sides", ariaHidden: "true" }, ...(row[4] === null ? [other] : [one, other]).map((text) => make("span", { textContent: text })));
  const made = make("figure", {}, sides, pair, make("figcaption", {},
    make("span", { className: "prompt", textContent: prompt }),
    make("span", { className: "note", textContent: seeds }),
    make("span", { className: "verdict", textContent: verdict })));
  made.dataset.verdict = verdict;
  return made;
}

const dialog = document.querySelector("dialog");
const enlarged = { part: null, order: [], at: 0, overlaid: false };

function picture(number, alt) {
  if (number === null) return "";
  const image = make("img", { alt, src: original(number) });
  image.onload = () => image.classList.toggle("small", image.naturalWidth <= 256);
  image.onerror = () => { image.onerror = null; image.src = thumbnail(number); };
  return image;
}

function show() {
  const { part, order, at, overlaid } = enlarged, row = part.rows[order[at]], { prompt, verdict, seeds } = said(part, row);
  const fill = (selector, ...children) => dialog.querySelector(selector).replaceChildren(...children);
  fill(".where", `${at + 1} of ${order.length} · ${part.groups[row[0]]} · ${verdict}`);
  const [one, other] = part.sides;
  fill(".stage", picture(row[4], one), picture(row[5], other));
  [...dialog.querySelectorAll("th")].slice(1).forEach((head, i) => { head.textContent = part.sides[i]; });
  dialog.querySelectorAll(".cut span").forEach((label, i) => { label.textContent = part.sides[i]; });
  dialog.querySelector(".stage").classList.toggle("overlaid", overlaid);
  dialog.querySelector(".cut").hidden = !overlaid;
  fill(".asked", make("span", { className: "prompt", textContent: prompt }), make("span", { className: "note", textContent: seeds }));
  fill("tbody", ...row[8].map(([before, after], judge) =>
    make("tr", {}, ...[part.scorers[judge], before, after].map((text) => make("td", { textContent: text })))));
  const link = (number, text) => make("a", { href: original(number), textContent: text, target: "_blank" });
  fill(".full", "Full size: ", ...(row[4] === null ? [] : [link(row[4], one), ", "]), link(row[5], other));
  dialog.querySelector("[data-step='-1']").disabled = at === 0;
  dialog.querySelector("[data-step='1']").disabled = at === order.length - 1;
}

function step(by) {
  const to = enlarged.at + by;
  if (to >= 0 && to < enlarged.order.length) { enlarged.at = to; show(); }
}

dialog.addEventListener("click", (event) => {
  const step_by = event.target.closest("[data-step]");
  if (step_by) step(Number(step_by.dataset.step));
  else if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
dialog.querySelector("input").addEventListener("input", (event) => {
  dialog.querySelector(".stage").style.setProperty("--cut", `${event.target.value}%`);
});

function gallery(element) {
  const part = data.galleries[Number(element.dataset.gallery)], wanted = { group: "", verdict: "" };
  const sections = [...element.querySelectorAll(".group")].map((section, group) =>
    ({ section, group, grid: section.querySelector(".grid"), more: section.querySelector(".more"), matching: [], shown: 0 }));
  const overlaid = element.querySelector("[data-overlaid]");
  const open = (at) => {
    const order = sections.filter((s) => !s.section.hidden).flatMap((s) => s.matching);
    Object.assign(enlarged, { part, order, at: order.indexOf(at), overlaid: overlaid.checked });
    show();
    dialog.showModal();
  };
  const extend = (s, by) => {
    const next = s.matching.slice(s.shown, s.shown + by);
    s.grid.append(...next.map((at) => figure(part, at, open)));
    s.shown += next.length;
    const left = s.matching.length - s.shown;
    s.more.hidden = left === 0;
    s.more.firstElementChild.textContent = `Show ${Math.min(MORE, left)} more of ${left}`;
    element.querySelector("output").textContent = `${sections.reduce((n, t) => n + (t.section.hidden ? 0 : t.shown), 0)} of ` +
      `${sections.reduce((n, t) => n + (t.section.hidden ? 0 : t.matching.length), 0)} pairs shown`;
  };
  const filter = () => {
    const verdict = part.verdicts.indexOf(wanted.verdict);
    for (const s of sections) {
      s.matching = [];
      s.shown = 0;
      s.grid.replaceChildren();
    }
    part.rows.forEach((row, at) => { if (verdict < 0 || row[1] === verdict) sections[row[0]].matching.push(at); });
    for (const s of sections) {
      s.section.hidden = s.matching.length === 0 || (wanted.group !== "" && s.section.dataset.group !== wanted.group);
    }
    for (const s of sections) if (!s.section.hidden) extend(s, wanted.group ? MORE : FIRST);
    element.querySelector("output").hidden = false;
  };
  const ahead = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const s = sections.find((t) => t.more === entry.target);
      if (entry.isIntersecting && wanted.group && s && !s.more.hidden) {
        extend(s, MORE);
        ahead.unobserve(s.more);
        ahead.observe(s.more);
      }
    }
  }, { rootMargin: "600px" });
  for (const s of sections) {
    s.more.firstElementChild.addEventListener("click", () => {
      const before = s.grid.children.length;
      extend(s, MORE);
      s.grid.children[before].querySelector("button").focus();
    });
    ahead.observe(s.more);
  }
  for (const select of element.querySelectorAll("select")) {
    select.addEventListener("change", () => { wanted[select.dataset.filter] = select.value; filter(); });
  }
  overlaid.addEventListener("change", () => element.classList.toggle("overlaid", overlaid.checked));
  element.querySelector(".filters").hidden = false;
  filter();
}

for (const element of document.querySelectorAll(".gallery")) gallery(element);

// The few pairs at the top of an evaluation: enlarged, one steps through these alone.
for (const element of document.querySelectorAll(".proof")) {
  const part = data.galleries[Number(element.dataset.gallery)], order = element.dataset.pairs.split(",").map(Number);
  const open = (at) => {
    Object.assign(enlarged, { part, order, at: order.indexOf(at), overlaid: false });
    show();
    dialog.showModal();
  };
  element.append(...order.map((at) => figure(part, at, open)));
}

// A page that is printed shows what is folded away on a screen.
const folded = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) { details.open = true; folded.push(details); }
});
addEventListener("afterprint", () => { for (const details of folded.splice(0)) details.open = false; });
