// The page of `kun serve`: no framework, nothing from outside. Model text only ever becomes text nodes.
import { drawLive } from "./live.js";
import { el, markdown } from "./nodes.js";
import { words } from "./words.js";
import { drawTry } from "./play.js";
import { drawPictures } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const store = (key, value) => {
  try {
    if (value === undefined) return localStorage.getItem("kun." + key);
    localStorage.setItem("kun." + key, value);
  } catch { /* storage may be off */ }
  return null;
};
let lang = store("lang") || (navigator.language.startsWith("zh") ? "zh" : "en");
const t = (key) => words[lang][key] ?? words.en[key] ?? key;

const bytes = (n) => n >= 2 ** 30 ? (n / 2 ** 30).toFixed(1) + " GiB" : n >= 2 ** 20 ? Math.round(n / 2 ** 20) + " MiB" : Math.round(n / 1024) + " KiB";
let toastTimer;
function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("show");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("show"), 2600);
}

// Asking the server -----------------------------------------------------------------------------------------------
let lastCall = null;
let apiKey = null;
try { apiKey = sessionStorage.getItem("kun.key"); } catch { /* as above */ }

async function ask(method, path, body, signal, remember = true) {
  if (remember && method !== "GET") lastCall = { method, path, body };
  const form = body instanceof FormData;
  for (;;) {
    const headers = body && !form ? { "content-type": "application/json" } : {};
    if (apiKey) headers.authorization = "Bearer " + apiKey;
    const response = await fetch(path, { method, headers, body: form ? body : body && JSON.stringify(body), signal });
    if (response.status === 401) {
      await askKey();
      continue;
    }
    if (!response.ok) {
      let message = response.status + " " + response.statusText;
      try {
        const answer = await response.json();
        message = answer.error?.message ?? answer.error ?? message;
      } catch { /* no JSON */ }
      throw new Error(message);
    }
    return response;
  }
}
const json = async (...args) => (await ask(...args)).json();

function askKey() {
  return new Promise((resolve) => {
    const dialog = $("key-dialog");
    dialog.addEventListener("close", () => {
      apiKey = $("key").value.trim();
      try { sessionStorage.setItem("kun.key", apiKey); } catch { /* as above */ }
      resolve();
    }, { once: true });
    dialog.showModal();
  });
}

/** The lines of a streamed answer. */
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    rest += value;
    const parts = rest.split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

// Chat -------------------------------------------------------------------------------------------------------------
let turns = [];
let running = null;

function draw() {
  const log = $("log");
  log.replaceChildren();
  if (!turns.length) {
    const idea = (text) => el("button", { type: "button", onclick: () => { $("input").value = text; send(); } }, text);
    log.append(el("div", { class: "hello" },
      el("img", { src: "icon.svg", alt: "" }), el("h1", {}, t("hello")), el("p", {}, t("hello_about")),
      el("div", { class: "ideas" }, ...t("ideas").map(idea))));
  }
  turns.forEach((turn, index) => log.append(drawn(turn, index)));
}

function drawn(turn, index) {
  const body = el("div", { class: "body" });
  fill(body, turn);
  const act = (label, onclick) => el("button", { type: "button", class: "quiet", onclick }, t(label));
  const acts = el("div", { class: "acts" }, act("copy", () => copy(turn.content)));
  if (turn.role === "user") acts.append(act("edit", () => edit(index)));
  else acts.append(act("retry", () => { if (!running) { turns = turns.slice(0, index); answer(); } }));
  const who = el("div", { class: "who" }, turn.role === "user" ? t("you") : turn.model || "Kun", turn.note ? el("span", {}, turn.note) : null);
  return el("article", { class: "turn " + turn.role, "data-index": index }, who, body, acts);
}

function fill(body, turn) {
  body.replaceChildren();
  if (turn.reasoning) {
    body.append(el("details", { open: !turn.content }, el("summary", {}, t("thoughts")), el("div", { class: "thoughts" }, turn.reasoning)));
  }
  if (turn.role === "user") body.append(turn.content);
  else body.append(markdown(turn.content));
  if (turn.error) body.append(el("p", { class: "error" }, turn.error));
}

function edit(index) {
  if (running) return;
  const turn = turns[index];
  const node = $("log").querySelector(`[data-index="${index}"]`);
  const area = el("textarea", { rows: Math.min(10, turn.content.split("\n").length + 1), "aria-label": t("edit") });
  area.value = turn.content;
  const done = () => { turns = turns.slice(0, index); turns.push({ role: "user", content: area.value }); answer(); };
  area.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); done(); }
    if (e.key === "Escape") { e.stopPropagation(); draw(); }
  });
  node.replaceChildren(area, el("div", { class: "row end" },
    el("button", { type: "button", onclick: draw }, t("cancel")), el("button", { type: "button", class: "primary", onclick: done }, t("send"))));
  area.focus();
}

function send() {
  const text = $("input").value.trim();
  if (!text || running) return;
  $("input").value = "";
  grow();
  turns.push({ role: "user", content: text });
  answer();
}

function body() {
  const messages = turns.filter((turn) => !turn.error).map(({ role, content }) => ({ role, content }));
  const system = $("system").value.trim();
  if (system) messages.unshift({ role: "system", content: system });
  const request = {
    model: $("model").value || undefined,
    messages,
    temperature: Number($("temperature").value),
    top_p: Number($("top_p").value),
    max_tokens: Number($("max_tokens").value) || undefined,
    stream: true,
    stream_options: { include_usage: true },
  };
  if ($("seed").value !== "") request.seed = Number($("seed").value);
  if ($("thinking").value) request.enable_thinking = $("thinking").value === "on";
  if ($("schema").value.trim()) {
    request.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse($("schema").value) } };
  }
  return request;
}

async function answer() {
  const turn = { role: "assistant", content: "", reasoning: "", model: $("model").value };
  let request;
  try { request = body(); } catch (error) { toast(t("bad_schema") + " " + error.message); draw(); return; }
  turns.push(turn);
  draw();
  const node = $("log").lastElementChild;
  const target = node.querySelector(".body");
  node.classList.add("busy");
  running = new AbortController();
  working(true);
  const log = $("log");
  const begun = performance.now();
  let first = 0, usage = null, waiting = false;
  const paint = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const near = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
      fill(target, turn);
      if (near) log.scrollTop = log.scrollHeight;
    });
  };
  log.scrollTop = log.scrollHeight;
  try {
    const response = await ask("POST", "v1/chat/completions", request, running.signal);
    for await (const line of lines(response)) {
      if (!line.startsWith("data: ") || line.startsWith("data: [DONE]")) continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      if (chunk.usage) usage = chunk.usage;
      if (chunk.warnings) turn.note = chunk.warnings.join("; ");
      const delta = chunk.choices[0]?.delta ?? {};
      if (delta.content || delta.reasoning_content) first ||= performance.now();
      turn.content += delta.content ?? "";
      turn.reasoning += delta.reasoning_content ?? "";
      paint();
    }
  } catch (error) {
    if (error.name === "AbortError") turn.note = t("stopped");
    else turn.error = error.message;
  }
  const seconds = (performance.now() - first) / 1000;
  if (usage && first) {
    const rate = usage.completion_tokens > 1 ? ((usage.completion_tokens - 1) / seconds).toFixed(0) : "–";
    const cached = usage.prompt_tokens_details?.cached_tokens;
    $("speed").textContent = `${usage.completion_tokens} ${t("tokens")} · ${rate} ${t("per_second")} · ${t("first_after")} ${((first - begun) / 1000).toFixed(2)} s` + (cached ? ` · ${cached} ${t("cached")}` : "");
  }
  running = null;
  working(false);
  const at = log.scrollTop;
  draw();
  log.scrollTop = at;
  $("input").focus();
}

function working(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
}
function stop() { running?.abort(); }
function grow() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = Math.min(input.scrollHeight, innerHeight * 0.4) + "px";
}
async function copy(text) {
  try { await navigator.clipboard.writeText(text); toast(t("copied")); } catch { toast(t("not_copied")); }
}

// Models ---------------------------------------------------------------------------------------------------------------
let known = [];
async function loadModels() {
  try { known = (await json("GET", "v1/models")).data; } catch (error) { toast(error.message); return; }
  const select = $("model");
  const chosen = select.value || store("model");
  const chat = known.filter((model) => !model.type || model.type === "chat");
  select.replaceChildren(...chat.map((model) => el("option", {}, model.id)));
  const loaded = chat.find((model) => model.status === "loaded");
  const fallback = chat.find((model) => model.default) ?? loaded;
  if (chat.some((model) => model.id === chosen)) select.value = chosen;
  else if (fallback) select.value = fallback.id;
}

async function drawModels() {
  await loadModels();
  let status;
  try { status = await json("GET", "v1/status"); } catch (error) { toast(error.message); return; }
  const { used_bytes: used, budget_bytes: budget } = status.memory;
  $("memory-text").textContent = `${bytes(used)} / ${bytes(budget)}`;
  $("memory").setAttribute("aria-label", $("memory-text").textContent);
  $("memory").replaceChildren(...status.models.filter((m) => m.memory_bytes).map((m) => {
    const part = el("i", { title: `${m.name}: ${bytes(m.memory_bytes)}` });
    part.style.width = (m.memory_bytes / budget) * 100 + "%";
    return part;
  }));
  $("catalog").replaceChildren(...status.catalog.map((entry) => el("option", { value: entry.name }, entry.title)));
  $("model-list").replaceChildren(...known.map((model) => {
    const state = status.models.find((m) => m.name === model.id);
    const loaded = model.status === "loaded";
    const facts = [model.type, model.architecture?.name, model.quantization, model.context_length && `${model.context_length} ${t("tokens")}`, state?.memory_bytes && bytes(state.memory_bytes), model.license];
    const act = (label, path) => el("button", { onclick: async (event) => {
      event.target.disabled = true;
      try { await json("POST", path, { model: model.id }); } catch (error) { toast(error.message); }
      drawModels();
    } }, t(label));
    return el("div", { class: "card" }, el("div", { class: "name" }, model.id, el("small", {}, facts.filter(Boolean).join(" · "))),
      el("span", { class: "tag" + (loaded ? " on" : "") }, t(model.status)),
      status.admin ? (loaded ? act("unload", "v1/models/unload") : act("load", "v1/models/load")) : null);
  }));
}

async function pull(event) {
  event.preventDefault();
  const name = $("pull-name").value.trim();
  const state = $("pull-state");
  const bar = el("i"), text = el("span", {}, "…");
  state.replaceChildren(el("div", { class: "card" }, el("div", { class: "row" }, el("strong", {}, name), text), el("div", { class: "meter" }, bar)));
  try {
    const response = await ask("POST", "api/pull", { model: name, stream: true });
    for await (const line of lines(response)) {
      if (!line.trim()) continue;
      const step = JSON.parse(line);
      if (step.error) throw new Error(step.error);
      text.textContent = step.total ? `${step.status} · ${bytes(step.completed ?? 0)} / ${bytes(step.total)}` : step.status;
      bar.style.width = step.total ? ((step.completed ?? 0) / step.total) * 100 + "%" : "0";
    }
    bar.style.width = "100%";
    drawModels();
  } catch (error) {
    text.textContent = error.message;
    text.className = "error";
  }
}

// The API call -------------------------------------------------------------------------------------------------------
function showCode() {
  const call = lastCall ?? { method: "POST", path: "v1/chat/completions", body: { ...body(), messages: [{ role: "user", content: t("hello") }] } };
  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const parts = ["curl -N " + new URL(call.path, location.href).href];
  if (apiKey) parts.push("-H \"Authorization: Bearer $KUN_API_KEY\"");
  if (call.body instanceof FormData) {
    for (const [name, value] of call.body) parts.push(value instanceof File ? "-F " + quoted(`${name}=@${value.name}`) : "--form-string " + quoted(`${name}=${value}`));
  } else parts.push("-H 'Content-Type: application/json'", "-d " + quoted(JSON.stringify(call.body, null, 2)));
  $("code-text").textContent = parts.join(" \\\n  ");
  $("code-dialog").showModal();
}

// The frame ----------------------------------------------------------------------------------------------------------
let timer;
const kit = { $, el, t, ask, json, lines, toast, bytes, models: () => known };
const views = { chat: () => $("input").focus(), try: () => drawTry(kit), pictures: () => drawPictures(kit), models: drawModels, live: () => drawLive(kit) };
function show(view) {
  if (!views[view]) view = "chat";
  for (const tab of document.querySelectorAll("nav [role=tab]")) {
    const on = tab.dataset.view === view;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $("view-" + tab.dataset.view).hidden = !on;
  }
  clearInterval(timer);
  if (view === "live") timer = setInterval(views.live, 1000);
  if (view === "models") timer = setInterval(drawModels, 5000);
  if (location.hash.slice(1) !== view) history_replace(view);
  views[view]();
}
const history_replace = (view) => window.history.replaceState(null, "", "#" + view);

function translate() {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-title]")) { node.title = t(node.dataset.tTitle); node.setAttribute("aria-label", node.title); }
  for (const node of document.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
  $("language").textContent = lang === "zh" ? "EN" : "中";
  $("language").title = lang === "zh" ? "English" : "中文";
}
function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

for (const name of ["temperature", "top_p", "max_tokens", "system", "thinking"]) {
  const input = $(name);
  const saved = store(name);
  if (saved !== null) input.value = saved;
  const note = () => { const out = $(name + "-out"); if (out) out.textContent = Number(input.value).toFixed(2); };
  input.addEventListener("input", () => { store(name, input.value); note(); });
  note();
}
$("model").addEventListener("change", () => store("model", $("model").value));
$("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("input").addEventListener("input", grow);
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { stop(); $("panel").classList.remove("open"); }
});
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => { stop(); turns = []; draw(); $("panel").classList.remove("open"); $("input").focus(); });
$("settings").addEventListener("click", () => $("panel").classList.toggle("open"));
$("pull").addEventListener("submit", pull);
$("code").addEventListener("click", showCode);
$("code-close").addEventListener("click", () => $("code-dialog").close());
$("code-copy").addEventListener("click", () => copy($("code-text").textContent));
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
  store("theme", dark ? "light" : "dark");
});
$("language").addEventListener("click", () => { lang = lang === "zh" ? "en" : "zh"; store("lang", lang); translate(); draw(); show(location.hash.slice(1)); });
const tabs = [...document.querySelectorAll("nav [role=tab]")];
tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => show(tab.dataset.view));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    show(next.dataset.view);
    next.focus();
  });
});
addEventListener("hashchange", () => show(location.hash.slice(1)));

setTheme(store("theme"));
translate();
draw();
await loadModels();
show(location.hash.slice(1));
