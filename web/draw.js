// Drawing: pictures from words, or from a picture and words, shown while they come.
import { compare } from "./compare.js";
import { mask, painter } from "./mask.js";

/** Tasks that draw, and their routes. */
export const DRAWING = { draw: "generations", edit: "edits", vary: "variations" };
const SIZES = ["512x512", "512x768", "768x512", "768x768", "1024x1024"];
const MOST_KEPT = 48;
// What was chosen, what runs and what was drawn stay while the page is open.
const chosen = { prompt: "", negative: "", size: "", width: "512", height: "512", count: "1", steps: "", guidance: "", seed: "", strength: "", partial: "2" };
const drawn = [];
let running = null;
let said = "";
// The view as it stands now: work goes on while it is made anew.
let view = null;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/**
 * The form and the results. `owner` tells the model and takes a picture to change: `model()`, `change(file)`.
 * `show(task, file, fits)` fits the form to a task, its picture and how many models there are; `start()` draws.
 */
export function drawing(kit, owner) {
  const { el, t } = kit;
  let task = "draw", file = null, painted = null, able = false;
  const bound = (name, node) => {
    node.value = chosen[name];
    node.addEventListener("input", () => { chosen[name] = node.value; });
    node.id = "draw-" + name;
    return node;
  };
  const field = (name, node) => el("label", {}, el("span", {}, t("draw_" + name)), bound(name, node));
  const number = (name, min, max, step = 1, placeholder = "") => field(name, el("input", { type: "number", min, max, step, placeholder }));
  const submit = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); event.target.form.requestSubmit(); }
  };
  const prompt = field("prompt", el("textarea", { rows: 3, placeholder: t("draw_prompt_example"), onkeydown: submit }));
  const negative = field("negative", el("textarea", { rows: 1, placeholder: t("draw_negative_example"), onkeydown: submit }));
  const size = field("size", el("select", {}, el("option", { value: "" }, t("by_model")), ...SIZES.map((s) => el("option", { value: s }, s.replace("x", " × "))), el("option", { value: "other" }, t("other"))));
  const sides = [number("width", 8, 4096, 8), number("height", 8, 4096, 8)];
  const strength = el("label", { class: "slide" }, el("span", {}, t("draw_strength")), el("output"), bound("strength", el("input", { type: "range", min: 0.05, max: 1, step: 0.05 })));
  // Where the slider stands until it is moved: models that fill masks have another default than others.
  if (!chosen.strength) strength.lastChild.value = 0.8;
  const fit = () => {
    sides.forEach((side) => { side.hidden = side.lastChild.disabled = chosen.size !== "other"; });
    strength.children[1].textContent = chosen.strength ? Number(chosen.strength).toFixed(2) : t("by_model");
  };
  size.addEventListener("input", fit);
  strength.addEventListener("input", fit);
  const place = el("div");
  const none = el("p", { class: "notice", hidden: true }, t("no_draw"), " ", el("code", {}, "kun pull stable-diffusion-1.5"), " ", el("a", { href: "#models" }, t("models")));
  const go = el("button", { class: "primary", id: "draw-run" }, t("draw"));
  const stop = el("button", { type: "button", class: "danger", id: "draw-stop", onclick: () => running?.controller.abort() }, t("stop"));
  const form = el("fieldset", { class: "drawing" }, none, place, prompt, negative,
    el("div", { class: "choices" }, size, ...sides, number("count", 1, 8), number("steps", 1, 150, 1, t("by_model")), number("guidance", 0, 100, "any", t("by_model")), number("seed", 0, 2 ** 53 - 1, 1, t("random")), field("partial", el("select", {}, ...[0, 1, 2, 3].map((n) => el("option", {}, n))))),
    strength, el("div", { class: "row end" }, go));

  const state = el("div", { id: "draw-state" });
  const gallery = el("div", { class: "gallery", id: "draw-gallery" });
  const told = el("p", { class: "error", role: "status" });
  const bar = el("progress", { "aria-label": t("draw") });
  const line = el("span", { id: "draw-line" });
  const partial = el("img", { alt: t("so_far"), id: "draw-so-far" });
  const card = el("div", { class: "card", hidden: true }, el("div", { class: "row" }, el("strong", {}, t("drawing")), line, stop), bar, partial);
  state.append(card, told);
  view = {
    tell() {
      const begins = card.hidden && running;
      const focused = document.activeElement;
      card.hidden = !running;
      go.disabled = Boolean(running) || !able;
      // What had the focus may be gone: its counterpart takes over.
      if (focused === go && running) stop.focus();
      if (focused === stop && !running) go.focus();
      told.textContent = said;
      if (!running) return;
      if (begins) card.scrollIntoView({ block: "nearest" });
      const { passes, done, index, count, begun } = running;
      const gone = (performance.now() - begun) / 1000;
      const share = passes ? (index + done / passes) / count : 0;
      if (passes) { bar.max = passes; bar.value = done; } else bar.removeAttribute("value");
      line.textContent = [
        count > 1 && `${t("picture")} ${index + 1} / ${count}`, passes && `${t("pass")} ${done} / ${passes}`, clock(gone),
        share > 0 && `${t("left")} ${clock(gone / share - gone)}`,
      ].filter(Boolean).join(" · ");
      partial.hidden = !running.partial;
      if (!running.partial || partial.src === running.partial) return;
      // The first one makes the card grow out of sight.
      partial.onload = running.seen ? null : () => card.scrollIntoView({ block: "nearest" });
      running.seen = true;
      partial.src = running.partial;
    },
    add(picture) {
      gallery.prepend(tile(kit, owner, picture));
      gallery.children[MOST_KEPT]?.remove();
    },
  };
  drawn.forEach(view.add);
  fit();
  view.tell();
  return {
    form,
    out: el("div", {}, state, gallery),
    show(now, given, fits) {
      [task, file] = [now, given];
      negative.hidden = task === "vary";
      strength.hidden = task === "draw";
      prompt.lastChild.required = task !== "vary";
      able = fits > 0;
      none.hidden = able;
      view.tell();
      prompt.firstChild.textContent = t(task === "edit" ? "draw_change" : "draw_prompt");
      if (task !== "edit" || !file) { place.replaceChildren(); painted = null; }
      else if (painted !== file) { place.replaceChildren(painter(kit, file)); painted = file; }
    },
    start: () => draw(kit, owner, task, file),
    stop: () => running?.controller.abort(),
  };
}

/** What is sent: the seed too, so that the same call draws the same pictures. */
async function request(owner, task, file) {
  const number = (text) => text === "" ? undefined : Number(text);
  const fields = {
    model: owner.model() || undefined,
    prompt: chosen.prompt.trim(),
    negative_prompt: task === "vary" ? undefined : chosen.negative.trim() || undefined,
    size: (chosen.size === "other" ? `${chosen.width}x${chosen.height}` : chosen.size) || undefined,
    n: number(chosen.count),
    steps: number(chosen.steps),
    guidance_scale: number(chosen.guidance),
    seed: number(chosen.seed) ?? crypto.getRandomValues(new Uint32Array(1))[0],
    strength: task === "draw" ? undefined : number(chosen.strength),
    stream: true,
    partial_images: number(chosen.partial),
    progress: true,
  };
  if (task === "draw") return fields;
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) form.append(name, value);
  form.append("image", file);
  const hole = task === "edit" ? await mask() : null;
  if (hole) form.append("mask", hole);
  return form;
}

async function draw(kit, owner, task, file) {
  if (running) return;
  const before = task === "draw" ? null : file;
  const body = await request(owner, task, file);
  const controller = new AbortController();
  running = { controller, begun: performance.now(), index: 0, count: Number(chosen.count) || 1, done: 0, passes: 0, partial: "" };
  said = "";
  const timer = setInterval(() => view.tell(), 500);
  view.tell();
  const read = (event) => {
    if (event.error) throw new Error(event.error.message);
    running.index = event.index;
    if (event.type.endsWith(".progress")) Object.assign(running, { done: event.passes_done, passes: event.passes });
    else if (event.type.endsWith(".partial_image")) running.partial = `data:image/${event.output_format};base64,${event.b64_json}`;
    else {
      const bytes = Uint8Array.from(atob(event.b64_json), (letter) => letter.charCodeAt(0));
      const blob = new Blob([bytes], { type: "image/" + event.output_format });
      const picture = { blob, src: URL.createObjectURL(blob), before, seed: event.seed, size: event.size, model: event.model };
      if (drawn.push(picture) > MOST_KEPT) URL.revokeObjectURL(drawn.shift().src);
      running.partial = "";
      view.add(picture);
    }
    if (event.warnings) said = event.warnings.join("; ");
    view.tell();
  };
  try {
    const response = await kit.ask("POST", "v1/images/" + DRAWING[task], body, controller.signal);
    for await (const line of kit.lines(response)) if (line.startsWith("data: ")) read(JSON.parse(line.slice(6)));
  } catch (error) {
    said = controller.signal.aborted ? kit.t("stopped") : error.message;
  }
  clearInterval(timer);
  running = null;
  view.tell();
}

/** One picture of the gallery. */
function tile(kit, owner, picture) {
  const { el, t } = kit;
  const name = `kun-${picture.seed}.png`;
  const again = () => {
    const seed = document.getElementById("draw-seed");
    seed.value = chosen.seed = String(picture.seed);
    seed.focus();
  };
  const change = () => owner.change(new File([picture.blob], name, { type: picture.blob.type }));
  const large = () => {
    const dialog = el("dialog", { class: "large", "aria-label": name, onclick: () => dialog.close(), onclose: () => dialog.remove() }, el("img", { alt: name, src: picture.src }));
    document.body.append(dialog);
    dialog.showModal();
  };
  const shown = picture.before ? compare(kit, picture.before, picture.src)
    : el("button", { type: "button", class: "picture", "aria-label": `${t("enlarge")} ${name}`, onclick: large }, el("img", { alt: "", src: picture.src }));
  return el("div", { class: "card" }, shown,
    el("div", { class: "facts" }, `${t("seed")} ${picture.seed} · ${picture.size.replace("x", "×")} · ${picture.model}`),
    el("div", { class: "acts" }, el("a", { href: picture.src, download: name }, t("save")),
      el("button", { type: "button", class: "quiet", onclick: again }, t("same_seed")), el("button", { type: "button", class: "quiet", onclick: change }, t("change_it"))));
}
