// The playground: what models for texts do, one card each.
let kit;

/** Draws the playground. */
export function drawTry(given) {
  kit = given;
  const { $, el, t } = kit;
  const page = el("div", { class: "page" }, el("h1", {}, t("try")));
  page.append(el("p", {}, t("try_about")));
  for (const tool of playground) {
    const out = el("div", { "aria-live": "polite" });
    const inputs = tool.inputs.map(([id, rows, value]) => {
      const area = el("textarea", { rows, id: "try-" + tool.id + "-" + id });
      area.value = value();
      return el("label", {}, el("span", {}, t(id)), area);
    });
    const models = el("select", { id: "try-" + tool.id + "-model", "aria-label": t("model") }, tool.optional && el("option", { value: "" }, t("forms")), ...kit.models().filter(tool.fits).map((m) => el("option", {}, m.id)));
    const run = async (event) => {
      event.preventDefault();
      const values = inputs.map((label) => label.querySelector("textarea").value);
      out.replaceChildren(el("p", {}, "…"));
      try { out.replaceChildren(await tool.run(models.value || undefined, ...values)); } catch (error) { out.replaceChildren(el("p", { class: "error" }, error.message)); }
    };
    page.append(el("form", { class: "card", onsubmit: run }, el("h2", {}, t(tool.id)), el("p", {}, t(tool.id + "_about")), models,
      ...inputs, el("div", { class: "row end" }, el("button", { class: "primary" }, t("run"))), out));
  }
  $("view-try").replaceChildren(page);
}
const bars = (rows) => {
  const { el } = kit;
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  return el("div", { class: "bars" }, ...rows.map(([text, value]) => {
    const bar = el("i");
    bar.style.width = Math.max(0, value / most * 100) + "%";
    return el("div", {}, el("span", {}, text), el("b", {}, value.toFixed(3)), bar);
  }));
};
const rows = (text) => text.split("\n").map((row) => row.trim()).filter(Boolean);
const playground = [
  {
    id: "embed", fits: (m) => m.type === "embedding",
    inputs: [["query", 2, () => kit.t("embed_query")], ["texts", 4, () => kit.t("embed_texts")]],
    async run(model, query, texts) {
      const list = rows(texts);
      const { data } = await kit.json("POST", "v1/embeddings", { model, input: [query, ...list], encoding_format: "float" });
      const [q, ...vectors] = data.map((d) => d.embedding);
      const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
      return bars(vectors.map((v, i) => [list[i], dot(q, v) / Math.sqrt(dot(q, q) * dot(v, v))]).sort((a, b) => b[1] - a[1]));
    },
  },
  {
    id: "rerank", fits: (m) => m.type === "rerank" || m.type === "embedding",
    inputs: [["query", 2, () => kit.t("embed_query")], ["texts", 4, () => kit.t("embed_texts")]],
    async run(model, query, texts) {
      const list = rows(texts);
      const { results } = await kit.json("POST", "v1/rerank", { model, query, documents: list });
      return bars(results.map((r) => [list[r.index], r.relevance_score]));
    },
  },
  {
    id: "classify", fits: (m) => ["classify", "embedding", "chat"].includes(m.type ?? "chat"),
    inputs: [["texts", 3, () => kit.t("classify_texts")], ["labels", 1, () => kit.t("classify_labels")]],
    async run(model, texts, labels) {
      const own = labels.split(/[,，]/).map((label) => label.trim()).filter(Boolean);
      const { data } = await kit.json("POST", "v1/classify", { model, input: rows(texts), ...(own.length ? { labels: own } : {}) });
      return kit.el("div", {}, ...data.map((d) => kit.el("div", {}, kit.el("p", {}, rows(texts)[d.index]), bars(Object.entries(d.scores).sort((a, b) => b[1] - a[1]).slice(0, 5)))));
    },
  },
  {
    id: "extract", fits: (m) => m.type === "classify", optional: true,
    inputs: [["text", 3, () => kit.t("extract_text")]],
    async run(model, text) {
      const { data } = await kit.json("POST", "v1/extract", { ...(model ? { model } : {}), input: text, pii: true });
      const marked = kit.el("p", { class: "marked" });
      const letters = [...text];
      let at = 0;
      for (const entity of data[0].entities) {
        marked.append(letters.slice(at, entity.start).join(""), kit.el("mark", {}, entity.text, kit.el("small", {}, entity.label)));
        at = entity.end;
      }
      marked.append(letters.slice(at).join(""));
      return marked;
    },
  },
  {
    id: "translate", fits: (m) => ["seq2seq", "chat"].includes(m.type ?? "chat"),
    inputs: [["text", 3, () => kit.t("translate_text")], ["to", 1, () => kit.t("translate_to")]],
    async run(model, text, to) {
      const { data } = await kit.json("POST", "v1/translate", { model, input: text, to: to.trim() });
      return kit.el("p", { class: "marked" }, data[0].text);
    },
  },
  {
    id: "tokens", fits: (m) => !m.type || m.type === "chat",
    inputs: [["text", 3, () => kit.t("tokens_text")]],
    async run(model, text) {
      const { tokens } = await kit.json("POST", "tokenize", { model, content: text });
      const { el } = kit;
      return el("p", {}, `${tokens.length}: `, el("code", {}, tokens.join(" ")));
    },
  },
];
