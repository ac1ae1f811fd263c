// Elements, and text with a little Markdown as elements. Whatever a model writes becomes text nodes.

/** Makes an element: el("p", { class: "x", onclick }, "text", child). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function inline(text) {
  const out = [];
  const rule = /(`[^`\n]+`)|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|\[([^\]\n]+)\]\((https?:\/\/[^)\s]+)\)/g;
  let at = 0;
  for (const m of text.matchAll(rule)) {
    out.push(text.slice(at, m.index));
    if (m[1]) out.push(el("code", {}, m[1].slice(1, -1)));
    else if (m[2]) out.push(el("strong", {}, m[2]));
    else if (m[3]) out.push(el("em", {}, m[3]));
    // Where a link goes is always shown.
    else out.push(m[4] + " (", el("a", { href: m[5], rel: "noopener noreferrer", target: "_blank" }, m[5]), ")");
    at = m.index + m[0].length;
  }
  out.push(text.slice(at));
  return out.filter((part) => part !== "");
}

/** A text as paragraphs, lists, tables and code. */
export function markdown(text) {
  const out = document.createDocumentFragment();
  const rows = text.split("\n");
  let i = 0;
  const until = (test) => {
    const taken = [];
    while (i < rows.length && test(rows[i])) taken.push(rows[i++]);
    return taken;
  };
  while (i < rows.length) {
    const row = rows[i];
    if (/^\s*```/.test(row)) {
      i++;
      const body = until((r) => !/^\s*```/.test(r));
      i++;
      const code = body.join("\n");
      out.append(el("pre", { tabindex: 0 }, el("code", {}, code)));
    } else if (/^#{1,4}\s/.test(row)) {
      i++;
      out.append(el(row.startsWith("##") ? "h4" : "h3", {}, ...inline(row.replace(/^#+\s*/, ""))));
    } else if (/^\s*[-*•]\s+/.test(row)) {
      out.append(el("ul", {}, ...until((r) => /^\s*[-*•]\s+/.test(r)).map((r) => el("li", {}, ...inline(r.replace(/^\s*[-*•]\s+/, ""))))));
    } else if (/^\s*\d+[.)]\s+/.test(row)) {
      const start = parseInt(row, 10);
      out.append(el("ol", { start }, ...until((r) => /^\s*\d+[.)]\s+/.test(r)).map((r) => el("li", {}, ...inline(r.replace(/^\s*\d+[.)]\s+/, ""))))));
    } else if (/^>/.test(row)) {
      out.append(el("blockquote", {}, ...inline(until((r) => /^>/.test(r)).map((r) => r.replace(/^>\s?/, "")).join(" "))));
    } else if (/^\s*\|.*\|\s*$/.test(row)) {
      const cells = until((r) => /^\s*\|.*\|\s*$/.test(r)).filter((r) => !/^[\s|:-]+$/.test(r)).map((r) => r.trim().slice(1, -1).split("|"));
      out.append(el("table", {}, ...cells.map((r, n) => el("tr", {}, ...r.map((c) => el(n ? "td" : "th", {}, ...inline(c.trim())))))));
    } else if (row.trim() === "") {
      i++;
    } else {
      const body = until((r) => r.trim() !== "" && !/^(\s*```|#{1,4}\s|\s*[-*•]\s+|\s*\d+[.)]\s+|>)/.test(r));
      if (!body.length) body.push(rows[i++]);
      const nodes = body.flatMap((r, n) => (n ? [el("br"), ...inline(r)] : inline(r)));
      out.append(el("p", {}, ...nodes));
    }
  }
  return out;
}
