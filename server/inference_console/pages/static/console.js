"use strict";
// What a form alone can't do. Every page works without this file.

document.documentElement.classList.add("scripted");
const root = document.body.dataset.root;
const byId = (id) => document.getElementById(id);

for (const time of document.querySelectorAll("time[data-now]")) {
  const show = () => { time.textContent = new Date().toLocaleString(); };
  show();
  window.addEventListener("beforeprint", show);
}

/** Fetch, or throw an error whose message is for people. */
async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(navigator.onLine ? "The console does not answer. Is it still running? Try again in a moment."
      : "This device is offline. Try again when it is connected.");
  }
  if (response.status === 401 || (response.redirected && new URL(response.url).pathname.endsWith("/login"))) {
    location.assign(`${root}login`);
    throw new Error("Your session has ended. Log in again.");
  }
  return response;
}

/** Return what is wrong with an answer, in words. */
async function problemOf(response) {
  const failed = `The console answered with status ${response.status}.`;
  return response.json().then((problem) => problem.detail || failed, () => failed);
}

/** Read an answer as a page. */
async function pageOf(response) {
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** Show a message, or none, in its place on the page: before `near` if that is given. */
function say(message, near) {
  const place = byId("alerts") || Object.assign(document.createElement("div"), { id: "alerts" });
  if (near) near.before(place);
  else if (!place.isConnected) byId("main").prepend(place);
  place.replaceChildren();
  if (!message) return;
  const alert = document.createElement("div");
  alert.className = "alert";
  alert.setAttribute("role", "alert");
  alert.append(Object.assign(document.createElement("p"), { textContent: message }));
  place.append(alert);
  alert.scrollIntoView({ block: "nearest" });
}

/** Let files be dropped on a place. */
function takeDrops(place, target, take) {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    target.classList.toggle("over", depth > 0);
  };
  const holdsFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  place.addEventListener("dragenter", (event) => { if (holdsFiles(event)) mark(1); });
  place.addEventListener("dragleave", (event) => { if (holdsFiles(event)) mark(-1); });
  place.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  place.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    mark(-depth);
    take([...event.dataTransfer.files]);
  });
}

// Forms that begin an operation, after which the browser goes to the operation's page. That of "This is wrong" sends the
// image of its answer.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!("async" in form.dataset)) return;
  event.preventDefault();
  const body = new FormData(form), button = form.querySelector("button");
  if (form.image) body.set("files", form.image, form.image.name);
  button.disabled = true;
  form.setAttribute("aria-busy", "true");
  try {
    const headers = { Accept: "application/json", Prefer: "respond-async" };
    const response = await ask(form.action, { method: "POST", headers, body });
    if (!response.ok) throw new Error(await problemOf(response));
    location.assign(new URL(response.headers.get("Location"), response.url));
  } catch (error) {
    say(error.message, form);
    button.disabled = false;
    form.removeAttribute("aria-busy");
  }
});

// Files chosen for a class, or dropped on it, are sent at once.
for (const place of document.querySelectorAll("form[data-async] .drop")) {
  const input = place.querySelector("input[type=file]");
  input.addEventListener("change", () => { if (input.files.length) input.form.requestSubmit(); });
  takeDrops(place, place, (files) => {
    const transfer = new DataTransfer();
    files.forEach((file) => transfer.items.add(file));
    input.files = transfer.files;
    input.form.requestSubmit();
  });
}

// An operation's page asks for itself until the operation has ended.
const polled = document.querySelector("[data-poll]");
if (polled) {
  const poll = async () => {
    try {
      const response = await ask(location.href, { headers: { Accept: "text/html" } });
      const fresh = (await pageOf(response)).querySelector("[data-poll]");
      say("");
      if (!fresh) {
        location.reload();
        return;
      }
      for (const part of ["h2", "[role=status]"]) {
        const [old, now] = [polled, fresh].map((each) => each.querySelector(part));
        if (old.textContent !== now.textContent) old.textContent = now.textContent;
      }
      for (const { name, value } of fresh.querySelector("progress").attributes) {
        polled.querySelector("progress").setAttribute(name, value);
      }
    } catch (error) {
      say(error.message);
    }
    setTimeout(poll, 1000);
  };
  setTimeout(poll, 1000);
}

// The page that classifies.
if (byId("ask")) {
  const form = byId("ask"), answers = byId("answers"), status = byId("status"), busy = byId("busy");
  const DEBOUNCE_MS = 200;
  let files = [];
  let request = null; // the newest; answers to others are dropped

  /** Ask for the answers to the files, and return their page; null if something newer was asked since. */
  const classify = async (fields = {}) => {
    if (request) request.abort();
    const mine = request = new AbortController();
    const body = new FormData();
    for (const file of files) body.append("files", file, file.name);
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    const options = { method: "POST", body, headers: { Accept: "text/html" }, signal: mine.signal };
    const response = await ask(form.action, options);
    const page = await pageOf(response);
    if (mine !== request) return null;
    if (page.querySelector("#list > article")) return page;
    const alert = page.querySelector("[role=alert] p");
    throw new Error(alert ? alert.textContent : `The console answered with status ${response.status}.`);
  };

  const articles = () => [...answers.querySelectorAll("#list > article")];
  const keepFiles = () => articles().forEach((article, number) => {
    const correction = article.querySelector(".correction form");
    if (correction) correction.image = files[number];
  });
  const images = (number) => (number === 1 ? "1 image" : `${number} images`);

  const summary = () => {
    const counts = new Map();
    for (const article of articles()) {
      const label = article.dataset.label || "without an answer";
      counts.set(label, (counts.get(label) || 0) + 1);
    }
    const labels = [...counts].map(([label, count]) => (files.length === 1 ? label : `${count} ${label}`));
    return `${images(files.length)}: ${labels.join(", ")}.`;
  };

  const showPreviews = () => {
    byId("previews").replaceChildren(...files.map((file) => {
      const item = document.createElement("li"), image = new Image(), url = URL.createObjectURL(file);
      image.alt = "";
      image.onload = () => URL.revokeObjectURL(url);
      image.onerror = () => { URL.revokeObjectURL(url); image.remove(); };
      image.src = url;
      item.append(image, file.name);
      return item;
    }));
  };

  const choose = async (chosen) => {
    if (!chosen.length) return;
    const most = Number(form.dataset.most), mostBytes = Number(form.dataset.mostBytes);
    const bytes = chosen.reduce((sum, file) => sum + file.size, 0);
    say("");
    if (chosen.length > most) {
      say(`${chosen.length} images are too many at a time. Choose up to ${most}.`);
      return;
    }
    if (bytes > mostBytes) {
      say(`These images have ${Math.ceil(bytes / 2 ** 20)} MiB together; ${mostBytes / 2 ** 20} MiB can be sent at a time. Choose fewer.`);
      return;
    }
    files = chosen;
    answers.hidden = true;
    if (byId("empty")) byId("empty").hidden = true;
    status.textContent = `Classifying ${images(files.length)}.`;
    showPreviews();
    busy.hidden = false;
    try {
      const page = await classify();
      if (!page) return;
      answers.replaceChildren(...page.getElementById("answers").children);
      answers.hidden = false;
      form.classList.add("answered");
      keepFiles();
      offerThreshold();
      byId("print").addEventListener("click", () => window.print());
      status.textContent = summary();
    } catch (error) {
      if (files !== chosen) return;
      status.textContent = error.name === "AbortError" ? "Cancelled: nothing was answered." : "";
      if (error.name !== "AbortError") say(error.message);
    }
    busy.hidden = true;
  };

  /** Have the slider ask again, one request at a time, and say what differs from the first answers. */
  const offerThreshold = () => {
    const slider = byId("slider");
    if (!slider) return;
    const reset = byId("own_threshold"), own = Number(slider.dataset.own), asked = files;
    const first = articles().map((article) => ({ ...article.dataset }));
    let timer = 0, asking = false, shown = own;
    const wanted = () => (reset.disabled ? own : Number(slider.value));

    const askAgain = async () => {
      if (asking || wanted() === shown || asked !== files) return;
      const threshold = wanted();
      asking = true;
      answers.setAttribute("aria-busy", "true");
      try {
        const page = await classify({ sim_thres: threshold, thumbnails: "no" });
        if (page) show(page, threshold);
      } catch (error) {
        if (error.name !== "AbortError") say(error.message);
        shown = threshold; // not again by itself
      }
      asking = false;
      answers.removeAttribute("aria-busy");
      askAgain();
    };
    const show = (page, threshold) => {
      const pictures = articles().map((article) => article.querySelector(".query > :first-child"));
      const open = articles().map((article) => Boolean(article.querySelector("details[open]")));
      byId("list").replaceChildren(...page.querySelectorAll("#list > article"));
      let changes = 0;
      articles().forEach((article, number) => {
        article.querySelector(".query > :first-child").replaceWith(pictures[number]);
        if (open[number]) article.querySelector("details").open = true;
        const before = first[number], now = article.dataset, changed = article.querySelector(".changed");
        if (!changed || (before.label === now.label && before.matches === now.matches)) return;
        changes += 1;
        changed.textContent = `At ${own}: ${before.label}, ${before.matches} matching. At ${threshold}: ${now.label}, ${now.matches} matching.`;
        changed.hidden = false;
      });
      keepFiles();
      say("");
      shown = threshold;
      status.textContent = threshold === own ? summary()
        : `At ${threshold}, ${changes} of ${images(files.length)} ${changes === 1 ? "differs" : "differ"} from ${own}. ${summary()}`;
    };
    const move = (atOwn) => {
      reset.disabled = atOwn;
      byId("slider_value").textContent = atOwn ? own : Number(slider.value);
      clearTimeout(timer);
      timer = setTimeout(askAgain, DEBOUNCE_MS);
    };
    slider.addEventListener("input", () => move(false));
    reset.addEventListener("click", () => {
      slider.value = own;
      move(true);
      slider.focus();
    });
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      choose([...input.files]);
      input.value = ""; // so that the same file may be chosen again
    });
  }
  byId("cancel").addEventListener("click", () => request.abort());
  takeDrops(document, form.querySelector(".drop"), choose);
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files];
    if (pasted.length) {
      event.preventDefault();
      choose(pasted);
    }
  });
  if (byId("print")) byId("print").addEventListener("click", () => window.print());
}
