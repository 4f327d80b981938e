"""JavaScript that reads off a page in a browser what a reader would see."""

from __future__ import annotations

CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const behind = (element) => {
    const own = numbers(getComputedStyle(element).backgroundColor);
    return own.length === 3 || own[3] === 1 ? own : behind(element.parentElement);
  };
  const all = [...document.querySelectorAll("h1,h2,h3,h4,p,li,td,th,dt,dd,a,span,label,summary,output")];
  return all.filter((element) => element.checkVisibility()).map((element) => {
    const pair = [numbers(getComputedStyle(element).color), behind(element)].map(light).sort((x, y) => y - x);
    return [element.tagName + "." + element.className, (pair[0] + .05) / (pair[1] + .05)];
  });
}"""
"""Contrast of all text that is shown, by WCAG's formula."""
BROKEN = """(cells) => cells.filter((cell) => {
  const text = document.createNodeIterator(cell, NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let node = text.nextNode(); node; node = text.nextNode())
    for (const word of node.data.matchAll(/[\\w@]+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) return true;
    }
  return false;
}).map((cell) => cell.innerText)"""
"""The cells in which a word goes over the end of its line."""
ACTIVE = "(({ dataset, className, tagName }) => dataset.filter || className || tagName)(document.activeElement)"
