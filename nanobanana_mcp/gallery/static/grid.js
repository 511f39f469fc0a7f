// The grid: only what is seen is in the page, and pages of the library come when they are scrolled to.

import { ask, at, say } from "./page.js";

const PAGE = 100; // as in pages.py
const KEPT = 60; // pages that stay in memory
const NEAR = 2; // rows that are ready above and below what is seen

const grid = document.getElementById("grid");
const form = document.getElementById("search");
const query = document.getElementById("query");
const filters = document.getElementById("filters");
const count = document.getElementById("count");
const empty = document.getElementById("empty");
const fresh = document.getElementById("fresh");

let wish = new URLSearchParams(location.search);
wish.delete("cursor");
let total = grid.dataset.total === "" || grid.dataset.total === "None" ? null : Number(grid.dataset.total);
let cursors = [""]; // where each page begins, as far as it is known
let marked = false; // whether all of them are
let tried = false; // whether they were asked for
let pages = new Map();
let coming = new Map();
let cells = new Map();
let columns = 1, side = 1, gap = 8;
let round = 0; // counts new wishes; answers to older ones are dropped
let chosen = 0; // the picture that has, or had, the focus

// What the server wrote into the page is its first page of pictures.
function firstPage() {
  const items = [...grid.querySelectorAll("a")].map((link) => {
    const image = link.firstElementChild;
    return { id: link.dataset.id, width: image.width, height: image.height, alt: image.alt, gone: link.classList.contains("gone") };
  });
  pages.set(0, items);
  if (grid.dataset.next) cursors[1] = grid.dataset.next;
  return items.length;
}

const known = () => total ?? Math.max(0, ...[...pages].map(([page, items]) => page * PAGE + items.length)) + (cursors.length > pages.size ? 1 : 0);

function measure() {
  const width = grid.clientWidth;
  const narrow = matchMedia("(max-width: 800px)").matches;
  gap = narrow ? 4 : 8;
  columns = Math.max(narrow ? 3 : 2, Math.floor((width + gap) / ((narrow ? 104 : 190) + gap)));
  side = (width - gap * (columns - 1)) / columns;
}

function lay() {
  const rows = Math.ceil(known() / columns);
  grid.style.height = rows ? `${rows * (side + gap) - gap}px` : "0";
}

const itemAt = (index) => pages.get(Math.floor(index / PAGE))?.[index % PAGE];

function indexOf(id) {
  for (const [page, items] of pages) {
    const index = items.findIndex((item) => item.id === id);
    if (index >= 0) return page * PAGE + index;
  }
  return undefined;
}

function place(cell, index) {
  const row = Math.floor(index / columns);
  cell.style.width = cell.style.height = `${side}px`;
  cell.style.transform = `translate(${(index % columns) * (side + gap)}px, ${row * (side + gap)}px)`;
}

function make(index, item) {
  const cell = document.createElement("li");
  const link = document.createElement("a");
  const image = document.createElement("img");
  link.href = at(`pictures/${item.id}`);
  link.dataset.id = item.id;
  link.dataset.index = index;
  link.tabIndex = index === chosen ? 0 : -1;
  link.classList.toggle("gone", item.gone);
  image.alt = item.alt;
  image.decoding = "async";
  image.src = at(`thumbs/${item.id}`);
  cell.setAttribute("aria-posinset", index + 1);
  cell.setAttribute("aria-setsize", total ?? -1);
  link.append(image);
  cell.append(link);
  cell.dataset.id = item.id;
  return cell;
}

function seen() {
  const top = Math.max(0, -grid.getBoundingClientRect().top);
  const first = Math.max(0, Math.floor(top / (side + gap)) - NEAR) * columns;
  const last = Math.min(known(), (Math.ceil((top + innerHeight) / (side + gap)) + NEAR) * columns);
  return [first, last];
}

function draw() {
  const [first, last] = seen();
  const focused = document.activeElement?.closest?.("#grid a");
  const before = focused ? chosen : -1;
  for (const [index, cell] of cells) {
    if ((index < first || index >= last) && index !== before) {
      cell.querySelector("img").removeAttribute("src"); // a picture that is not loaded yet need not come any more
      cell.remove();
      cells.delete(index);
    }
  }
  const wanted = Array.from({ length: Math.max(0, last - first) }, (_, index) => first + index);
  if (before >= 0 && (before < first || before >= last)) wanted.push(before);
  for (const index of wanted) {
    const item = itemAt(index);
    let cell = cells.get(index);
    if (cell && (!item || cell.dataset.id !== item.id)) {
      cell.remove();
      cells.delete(index);
      cell = undefined;
    }
    if (!item) continue;
    if (!cell) {
      cell = make(index, item);
      cells.set(index, cell);
      const next = [...cells.keys()].filter((one) => one > index).sort((a, b) => a - b)[0];
      grid.insertBefore(cell, next === undefined ? null : cells.get(next)); // in the order in which they are read
    }
    place(cell, index);
  }
  if (focused && !document.activeElement?.closest?.("#grid a")) focusOn(chosen, 0);
  if (last > first) {
    for (let page = Math.floor(first / PAGE); page <= Math.floor((last - 1) / PAGE); page++) need(page);
  }
}

let drawing = 0;
const redraw = () => { drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); }); };

async function need(page) {
  if (pages.has(page) || coming.has(page)) return;
  if (cursors[page] === undefined) {
    if (!marked && !tried) await marks();
    if (cursors[page] === undefined) {
      if (page > 0 && !pages.has(page - 1)) await need(page - 1);
      if (cursors[page] === undefined) return;
    }
    if (pages.has(page) || coming.has(page)) return;
  }
  const mine = round;
  const wanted = new URLSearchParams(wish);
  if (cursors[page]) wanted.set("cursor", cursors[page]);
  wanted.set("limit", PAGE);
  const asking = ask(`api/pictures?${wanted}`);
  coming.set(page, asking);
  try {
    const found = await asking;
    if (mine !== round) return;
    pages.set(page, found.images);
    if (found.cursor && !marked) cursors[page + 1] = found.cursor;
    if (found.total !== null) total = found.total;
    forget(page);
    told(found);
  } catch (error) {
    if (mine === round) say(error.message);
  } finally {
    if (mine === round) coming.delete(page);
  }
}

// How many there are is asked for when one has stopped typing: it takes longer than the first page.
let counting = 0;
function countLater() {
  clearTimeout(counting);
  const mine = round;
  if (total === null && cursors[1]) counting = setTimeout(async () => { await marks(); if (mine === round) told(null); }, 400);
}

let marking = null;
function marks() {
  const mine = round;
  marking ||= ask(`api/landmarks?${wish}`).then((found) => {
    if (mine !== round) return;
    tried = true;
    if (found.total === null) return; // then one page leads to the next
    total = found.total;
    cursors = found.cursors;
    marked = true;
    lay();
  }).catch((error) => { if (mine === round) say(error.message); }).finally(() => { if (mine === round) marking = null; });
  return marking;
}

function forget(near) {
  while (pages.size > KEPT) {
    const far = [...pages.keys()].reduce((a, b) => (Math.abs(a - near) >= Math.abs(b - near) ? a : b));
    pages.delete(far);
  }
}

function told(found) {
  const there = known();
  count.textContent = total === null ? `${there.toLocaleString("en")}+ pictures` : `${total.toLocaleString("en")} ${total === 1 ? "picture" : "pictures"}`;
  empty.hidden = there > 0;
  if (found?.nothing) empty.textContent = found.nothing;
  if (found?.notes?.length) say(found.notes.join(" "));
  lay();
  redraw();
}

// Ask anew: for other pictures, or because there are new ones.
async function begin({ keepPlace = false } = {}) {
  round += 1;
  const mine = round;
  coming = new Map();
  marking = null;
  const wanted = new URLSearchParams(wish);
  wanted.set("limit", PAGE);
  let found;
  try {
    found = await ask(`api/pictures?${wanted}`);
  } catch (error) {
    if (mine === round) say(error.message);
    return;
  }
  if (mine !== round) return;
  const focused = document.activeElement?.closest?.("#grid a")?.dataset.id;
  pages = new Map([[0, found.images]]);
  if (keepPlace && focused) chosen = indexOf(focused) ?? chosen; // new pictures came before it
  cursors = ["", ...(found.cursor ? [found.cursor] : [])];
  marked = !found.cursor;
  tried = false;
  total = found.total ?? (found.cursor ? null : found.images.length);
  fresh.hidden = true;
  if (!keepPlace) {
    chosen = 0;
    scrollTo(0, 0);
  }
  told(found);
  countLater();
}

// Search as one types.
let waiting = 0;
function changed() {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value.trim() && !(name === "kind" && value === "picture")) fields.set(name, value.trim());
  if (wish.get("made_from")) fields.set("made_from", wish.get("made_from"));
  if (fields.toString() === wish.toString()) return;
  wish = fields;
  history.replaceState(null, "", at("") + (fields.size ? `?${fields}` : ""));
  const narrowed = [...fields.keys()].some((name) => name !== "query");
  filters.toggleAttribute("data-narrowed", narrowed);
  begin();
}
form.addEventListener("input", (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(changed, event.target === query ? 120 : 0);
});
form.addEventListener("change", changed);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  filters.open = false;
  changed();
});
document.addEventListener("click", (event) => {
  if (filters.open && !filters.contains(event.target)) filters.open = false;
});

// The keyboard, all the way.
function choose(index) {
  index = Math.max(0, Math.min(known() - 1, index));
  const old = cells.get(chosen)?.firstElementChild;
  if (old) old.tabIndex = -1;
  chosen = index;
  const top = grid.offsetTop + Math.floor(index / columns) * (side + gap);
  const bar = document.querySelector(".bar").offsetHeight + 8;
  if (top < scrollY + bar) scrollTo(0, top - bar);
  else if (top + side > scrollY + innerHeight - 8) scrollTo(0, top + side - innerHeight + 8);
  draw();
  focusOn(index, 40);
}
function focusOn(index, tries) {
  const link = cells.get(index)?.firstElementChild;
  if (link) {
    link.tabIndex = 0;
    link.focus({ preventScroll: true });
  } else if (tries && chosen === index) {
    setTimeout(() => { draw(); focusOn(index, tries - 1); }, 25); // its page is on the way
  }
}
grid.addEventListener("focusin", (event) => {
  const link = event.target.closest("a");
  if (link) chosen = Number(link.dataset.index);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inForm = form.contains(event.target);
  if (event.key === "/" && !inForm) {
    event.preventDefault();
    query.focus();
    query.select();
  } else if (event.key === "Escape") {
    if (filters.open) {
      filters.open = false;
      filters.firstElementChild.focus();
    } else if (event.target === query && query.value) {
      query.value = "";
      changed();
    } else if (inForm) {
      choose(chosen);
    }
  } else if (event.target === query && event.key === "ArrowDown") {
    event.preventDefault();
    choose(0);
  } else if (!inForm) {
    const rows = Math.max(1, Math.floor(innerHeight / (side + gap)) - 1) * columns;
    const on = document.activeElement?.closest?.("#grid a");
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: rows, PageUp: -rows, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !known()) return;
    if (!on && !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    if (event.key === "ArrowUp" && on && chosen < columns) return query.focus();
    choose(on ? Math.max(0, Math.min(known() - 1, chosen + step)) : chosen);
  }
});

// New pictures come by themselves; who has scrolled away is told, and not moved.
let due = 0;
document.addEventListener("pictures", () => {
  clearTimeout(due);
  due = setTimeout(() => {
    if (scrollY < side) begin({ keepPlace: true });
    else {
      fresh.textContent = "There are new pictures";
      fresh.hidden = false;
    }
  }, 150);
});
document.addEventListener("back", () => begin({ keepPlace: true }));
fresh.addEventListener("click", () => { begin(); query.focus({ preventScroll: true }); });

if (!new URLSearchParams(location.search).has("cursor")) {
  const there = firstPage();
  measure();
  grid.classList.add("windowed");
  grid.querySelectorAll("li").forEach((cell, index) => {
    const link = cell.firstElementChild;
    link.dataset.index = index;
    link.tabIndex = index === 0 ? 0 : -1;
    cell.dataset.id = link.dataset.id;
    cell.setAttribute("aria-posinset", index + 1);
    cell.setAttribute("aria-setsize", total ?? -1);
    cells.set(index, cell);
    place(cell, index);
  });
  marked = !grid.dataset.next;
  if (total === null && marked) total = there;
  told(null);
  countLater();
  // Where one was, after coming back from a picture.
  const place_ = JSON.parse(sessionStorage.getItem("place") || "null");
  if (place_ && place_.wish === wish.toString() && performance.getEntriesByType("navigation")[0]?.type === "back_forward") {
    chosen = place_.chosen;
    lay();
    scrollTo(0, place_.y);
    choose(chosen);
  }
  addEventListener("pagehide", () => {
    const near = [];
    for (let index = Math.max(0, chosen - 150); index < Math.min(known(), chosen + 150); index++) near.push(itemAt(index)?.id ?? "");
    sessionStorage.setItem("place", JSON.stringify({ wish: wish.toString(), chosen, y: scrollY }));
    sessionStorage.setItem("around", JSON.stringify(near));
    sessionStorage.setItem("grid", wish.size ? `?${wish}` : "");
  });
  if (location.hash === "#query") query.focus();
  addEventListener("scroll", redraw, { passive: true });
  new ResizeObserver(() => { measure(); lay(); draw(); }).observe(grid);
}
