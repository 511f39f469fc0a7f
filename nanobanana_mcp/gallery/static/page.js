// What every page needs: addresses, forms, news of the library, and a word when the gallery has ended.

const body = document.body;
let base = body.dataset.base;
let formToken = body.dataset.formToken;
const notice = document.getElementById("notice");
let noticeTimer = 0;

export const at = (path) => `${base}/${path}`;

export function say(words, { stay = false } = {}) {
  clearTimeout(noticeTimer);
  notice.hidden = !words;
  notice.textContent = words;
  if (words && !stay) noticeTimer = setTimeout(() => { notice.hidden = true; }, 6000);
}

export class Refused extends Error {}

async function answerOf(request) {
  let response;
  try {
    response = await request();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    ended();
    throw new Refused("The gallery does not answer; nothing was done.");
  }
  const kind = response.headers.get("content-type") || "";
  const told = kind.startsWith("application/json") ? await response.json() : { error: (await response.text()).trim() };
  if (response.ok) return told;
  if (response.status === 401 || (response.status === 404 && !kind.startsWith("application/json"))) ended();
  throw new Refused(told.error || `The gallery answered ${response.status}.`);
}

export const ask = (path, signal) => answerOf(() => fetch(at(path), { headers: { accept: "application/json" }, signal }));

export const send = (path, fields) =>
  answerOf(() => fetch(at(path), {
    method: "POST",
    headers: { accept: "application/json", "x-form-token": formToken },
    body: new URLSearchParams(fields),
  }));

export const sendBytes = (path, bytes) =>
  answerOf(() => fetch(at(path), { method: "POST", headers: { accept: "application/json", "x-form-token": formToken }, body: bytes }));

// A gallery that is started again at this address has another folder and another form token, which its own pages know:
// a page that is open shares them with one that was left behind, so that what was painted there is not lost.
const others = new BroadcastChannel("nanobanana");
let gone = false;
others.onmessage = ({ data }) => {
  if (data.ask && !gone) others.postMessage({ base, formToken });
  if (data.base && gone && data.base !== base) {
    base = data.base;
    formToken = data.formToken;
    body.dataset.base = base;
    gone = false;
    for (const link of document.querySelectorAll("a[href], form[action]")) {
      const name = link.hasAttribute("href") ? "href" : "action";
      link.setAttribute(name, link.getAttribute(name).replace(/^\/[0-9a-f]{16}\//, `${base}/`));
    }
    say("The gallery is back.");
    listen();
    document.dispatchEvent(new CustomEvent("back"));
  }
};
others.postMessage({ base, formToken });

function ended() {
  gone = true;
  say("The gallery has ended. Start it again with 'nanobanana gallery'; this page goes on when its new address is open.", { stay: true });
  others.postMessage({ ask: true });
}

// News come while the page is seen; a browser has only six connections for all pages of one host.
let source = null;
let failed = 0;

function listen() {
  source?.close();
  source = null;
  if (document.visibilityState === "hidden" || gone) return;
  source = new EventSource(at("events"));
  source.onopen = () => { failed = 0; };
  source.onerror = () => {
    failed += 1;
    if (source && (source.readyState === EventSource.CLOSED || failed > 1)) {
      source.close();
      ended();
    }
  };
  for (const kind of ["pictures", "progress"]) {
    source.addEventListener(kind, ({ data }) => document.dispatchEvent(new CustomEvent(kind, { detail: JSON.parse(data) })));
  }
}

let hiddenSince = 0;
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") hiddenSince = Date.now();
  listen();
  if (document.visibilityState === "visible" && hiddenSince) document.dispatchEvent(new CustomEvent("pictures", { detail: { ids: [], gone: [], maybe: true } }));
});
addEventListener("pagehide", () => source?.close());
listen();

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied.`);
  } catch {
    say(`The browser does not let a page copy; here it is: ${text}`, { stay: true });
  }
}

export const typing = (event) => event.target.closest?.("input, textarea, select, [contenteditable]") !== null && !event.target.matches?.("input[type=range], input[type=radio], input[type=checkbox]");
