// Runs in a page that is tested: finds what cannot be read in it, and posts that to the page that frames it.
// A text is cut if it reaches out of the page, or out of what clips it or scrolls; its contrast is that of its colour
// with the colours that are painted behind it.
const channels = c => { const n = c.match(/[\d.]+/g).map(Number), k = c.startsWith("color(") ? 255 : 1;
  return [n[0] * k, n[1] * k, n[2] * k, n.length > 3 ? n[3] : 1]; };
const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const within = (r, x, y) => r.left <= x && x <= r.right && r.top <= y && y <= r.bottom;
function behind(e, r) {
  const layers = [], x = (r.left + r.right) / 2, y = (r.top + r.bottom) / 2;
  const svg = e.ownerSVGElement;
  if (svg) for (const box of svg.querySelectorAll("rect:not(.hit)"))
    if (box.compareDocumentPosition(e) & 4 && within(box.getBoundingClientRect(), x, y))
      layers.unshift(channels(getComputedStyle(box).fill));
  for (let p = svg || e; p; p = p.parentElement) layers.push(channels(getComputedStyle(p).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
}
function cut(e, r) {
  for (let p = e; p; p = p.parentElement) {
    const s = getComputedStyle(p), b = p.getBoundingClientRect();
    if (p.tagName === "svg" || s.overflowX === "hidden")
      if (r.left < b.left - 1 || r.right > b.right + 1 || r.top < b.top - 1 || r.bottom > b.bottom + 1) return true;
    if (s.overflowX === "auto") return r.left < b.left - p.scrollLeft - 1 || r.right > b.left + p.scrollWidth + 1;
  }
  return r.left < -1 || r.right > document.documentElement.clientWidth + 1;
}
function measured() {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const found = {errors, width: innerWidth, dark: matchMedia("(prefers-color-scheme:dark)").matches, texts: 0,
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth, cut: [], faint: [], silent: [], scrolls: 0};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange();
  while (walk.nextNode()) {
    const node = walk.currentNode, e = node.parentElement;
    if (!node.data.trim() || e.closest("script,style,title")) continue;
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      if (!r.width) continue;
      found.texts += 1;
      const style = getComputedStyle(e), ink = channels(e.ownerSVGElement ? style.fill : style.color);
      const back = behind(e, r), contrast = ratio(over(ink, back), back);
      if (cut(e, r)) found.cut.push(node.data);
      if (contrast < 4.5) found.faint.push([node.data, contrast]);
    }
  }
  for (const e of document.querySelectorAll(".wide")) {
    const scrolls = e.scrollWidth > e.clientWidth + 1;
    found.scrolls += scrolls;
    if (scrolls !== (getComputedStyle(e, "::before").display !== "none")) found.silent.push(`${e.scrollWidth - e.clientWidth}: ${e.textContent.trim().slice(0, 40)}`);
  }
  const b = s => [...document.querySelectorAll(s)].map(e => e.getBoundingClientRect());
  found.drawn = b(".chart .line").filter(r => r.width > 20).length;
  found.charts = b(".chart").filter(r => r.height > 60).length;
  found.cells = b(".archsmith-cell").filter(r => r.width > 80).length;
  return found;
}
const errors = [];
addEventListener("error", e => errors.push(e.message));
addEventListener("load", () => setTimeout(() => parent.postMessage(JSON.stringify(measured()), "*"), 300));
