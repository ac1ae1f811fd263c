// Pictures: drawn, or dropped and seen or remade by a model, and shown before and after.
import { compare } from "./compare.js";
import { DRAWING, drawing } from "./draw.js";

const MAKING = ["upscale", "denoise", "enhance", "stylize", "cutout"];
const SEEING = ["classify", "detect", "segment", "depth", "pose", "faces", "ocr"];
const SCORED = ["detect", "segment", "pose", "faces", "ocr"];
// What was chosen stays while the page is open.
const state = { file: null, task: "detect", model: "", threshold: "", labels: "" };
let kit;

/** Draws the view. */
export function drawPictures(given) {
  kit = given;
  const { $, el, t } = kit;
  const out = el("div", { "aria-live": "polite", id: "picture-out" });
  const preview = el("span", {}, t("drop"));
  const input = el("input", { type: "file", id: "picture-file", accept: "image/png,image/jpeg,image/webp,image/gif", "aria-label": t("drop") });
  const take = (file) => {
    if (!file || !file.type.startsWith("image/")) return;
    state.file = file;
    show();
    if (draws()) pencil.show(state.task, file, fits().length);
    else run();
  };
  const target = el("label", {
    class: "target",
    ondragover: (event) => { event.preventDefault(); target.classList.add("over"); },
    ondragleave: () => target.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); target.classList.remove("over"); take(event.dataTransfer.files[0]); },
  }, input, preview);
  const show = () => {
    if (!state.file) return;
    const image = el("img", { alt: "", src: URL.createObjectURL(state.file) });
    image.addEventListener("load", () => URL.revokeObjectURL(image.src));
    preview.replaceChildren(image);
  };
  input.addEventListener("change", () => take(input.files[0]));
  const view = $("view-pictures");
  view.onpaste = (event) => take(event.clipboardData?.files[0]);
  view.onkeydown = (event) => { if (event.key === "Escape") pencil.stop(); };

  const group = (name, tasks) => el("optgroup", { label: t("group_" + name) }, ...tasks.map((task) => el("option", { value: task }, t("task_" + task))));
  const task = el("select", { id: "picture-task" }, group("draw", Object.keys(DRAWING)), group("see", SEEING), group("make", MAKING));
  task.value = state.task;
  const model = el("select", { id: "picture-model" });
  const threshold = el("input", { type: "number", id: "picture-threshold", min: "0", max: "1", step: "0.05", placeholder: "—" });
  threshold.value = state.threshold;
  const lowest = el("label", {}, el("span", {}, t("threshold")), threshold);
  const labels = el("input", { id: "picture-labels", placeholder: "—" });
  labels.value = state.labels;
  const own = el("label", {}, el("span", {}, t("labels")), labels);
  const start = el("button", { class: "primary", id: "picture-run" }, t("run"));
  const pencil = drawing(kit, {
    model: () => model.value,
    change(file) {
      task.value = "edit";
      state.file = file;
      show();
      choose();
      view.scrollTo({ top: 0 });
    },
  });
  const draws = () => state.task in DRAWING;
  const named = () => state.task === "classify" ? state.labels.split(/[,，]/).map((label) => label.trim()).filter(Boolean) : [];
  const fits = () => kit.models().filter((m) => {
    if (draws()) return m.task === "image";
    // Labels of one's own take a model of pictures and texts.
    if (named().length) return m.task === "embed-image" && m.architecture.input_modalities.includes("text");
    return (m.type === "vision" || m.type === "image") && (!m.task || m.task === state.task);
  });
  const choose = () => {
    state.task = task.value;
    model.replaceChildren(el("option", { value: "" }, t("best")), ...fits().map((m) => el("option", {}, m.id)));
    model.value = fits().some((m) => m.id === state.model) ? state.model : "";
    lowest.hidden = threshold.disabled = !SCORED.includes(state.task);
    own.hidden = labels.disabled = state.task !== "classify";
    target.hidden = state.task === "draw";
    start.hidden = out.hidden = draws();
    pencil.form.hidden = pencil.form.disabled = pencil.out.hidden = !draws();
    if (draws()) pencil.show(state.task, state.file, fits().length);
  };
  task.addEventListener("change", choose);
  model.addEventListener("change", () => { state.model = model.value; });
  threshold.addEventListener("input", () => { state.threshold = threshold.value; });
  labels.addEventListener("input", () => { state.labels = labels.value; choose(); });

  let running = 0;
  async function run() {
    if (!state.file && state.task !== "draw") { input.click(); return; }
    if (draws()) { pencil.start(); return; }
    const turn = ++running;
    const form = new FormData();
    if (model.value) form.append("model", model.value);
    if (state.threshold && !lowest.hidden) form.append("threshold", state.threshold);
    for (const label of named()) form.append("labels", label);
    const makes = MAKING.includes(state.task);
    form.append(makes ? "output" : "draw", makes ? "json" : "true");
    form.append("image", state.file);
    const path = makes ? "v1/images/" + state.task : "v1/" + state.task;
    out.replaceChildren(el("p", {}, "…"));
    const begun = performance.now();
    try {
      const answer = await (await kit.ask("POST", path, form)).json();
      if (turn === running) out.replaceChildren(result(answer, state.file, (performance.now() - begun) / 1000));
    } catch (error) {
      if (turn === running) out.replaceChildren(el("p", { class: "error" }, error.message));
    }
  }
  view.replaceChildren(el("div", { class: "page" }, el("h1", {}, t("pictures")), el("p", {}, t("pictures_about")),
    el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } },
      el("div", { class: "choices" },
        el("label", {}, el("span", {}, t("task")), task),
        el("label", {}, el("span", {}, t("model")), model),
        lowest, own, start),
      target, pencil.form),
    out, pencil.out));
  choose();
  show();
}

/** What a model said, with the picture before and after. */
function result(answer, file, seconds) {
  const { el, t } = kit;
  const made = answer.data?.[0]?.b64_json;
  const after = made ? "data:image/png;base64," + made : answer.picture;
  const size = answer.result ? `${answer.width}×${answer.height} → ${answer.result.width}×${answer.result.height}` : `${answer.width}×${answer.height}`;
  const told = { ...answer };
  delete told.picture;
  delete told.data;
  const said = words(answer);
  return el("div", { class: "card" }, compare(kit, file, after),
    said.length ? el("div", { class: "said" }, ...said.map(([text, value]) => el("div", {}, el("span", {}, text), el("b", {}, value)))) : null,
    el("div", { class: "row" }, el("span", {}, `${answer.model} · ${size} · ${t("took")} ${seconds.toFixed(2)} s`),
      el("a", { href: after, download: file.name.replace(/\.[^.]*$/, "") + "-kun.png" }, t("save"))),
    answer.warnings ? el("p", {}, answer.warnings.join("; ")) : null,
    el("details", {}, el("summary", {}, "JSON"), el("pre", { tabindex: "0" }, JSON.stringify(told, (key, value) => key === "counts" ? "…" : value, 1).slice(0, 20000))));
}

const percent = (score) => (score * 100).toFixed(1) + " %";

/** Lines of text and a figure each. */
function words(answer) {
  const { t } = kit;
  const things = answer.classes ?? answer.detections ?? answer.instances ?? answer.faces ?? answer.people;
  if (things) {
    if (!things.length) return [[t("nothing"), ""]];
    const name = answer.faces ? t("task_faces") : answer.people ? t("task_pose") : "";
    return things.slice(0, 30).map((thing) => [thing.label ?? name, percent(thing.score)]);
  }
  if (answer.segments) return answer.segments.slice(0, 30).map((s) => [s.label ?? String(s.class), percent(s.share)]);
  if (answer.lines) return answer.lines.length ? answer.lines.map((l) => [l.text, percent(l.score)]) : [[t("nothing"), ""]];
  if (answer.depth) return [[`${answer.depth.min.toFixed(2)} – ${answer.depth.max.toFixed(2)}`, answer.depth.larger_is]];
  return [];
}
