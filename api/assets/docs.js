"use strict";
/* Builds the page from /openapi.json.  Text is only ever set as text: nothing of the document becomes markup. */
const $ = (id) => document.getElementById(id);
const VERBS = ["get", "put", "post", "patch", "delete"];
let doc;

function h(tag, props, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat(9).filter((child) => child != null && child !== false));
  return element;
}

/* The few marks of Markdown that descriptions use: paragraphs, `code`, **bold**. */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) =>
    part.startsWith("`") ? h("code", null, part.slice(1, -1))
      : part.startsWith("**") ? h("b", null, part.slice(2, -2)) : part.replace(/\n/g, " "));
}
const prose = (text) => (text || "").trim().split(/\n{2,}/).map((block) => h("p", null, inline(block)));

/* Schemas. */
const named = (ref) => ref.split("/").pop();
function resolve(schema) {
  for (let depth = 0; schema && schema.$ref && depth < 20; depth++) schema = doc.components.schemas[named(schema.$ref)];
  return schema || {};
}
function plain(schema) {
  const options = schema && schema.anyOf && schema.anyOf.filter((one) => one.type !== "null");
  return options && options.length === 1 && options.length < schema.anyOf.length ? { ...schema, ...options[0], anyOf: undefined, nullable: true } : schema || {};
}
function typeOf(raw) {
  const schema = plain(raw);
  const nullable = schema.nullable ? " or null" : "";
  if (schema.$ref) { const target = resolve(schema); return (target.enum ? typeOf(target) : named(schema.$ref)) + nullable; }
  if (schema.const !== undefined) return JSON.stringify(schema.const) + nullable;
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ") + nullable;
  if (schema.anyOf || schema.oneOf) return (schema.anyOf || schema.oneOf).map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items || {})}${nullable}`;
  if (schema.type === "object" && schema.additionalProperties && schema.additionalProperties !== true) return `object of ${typeOf(schema.additionalProperties)}${nullable}`;
  return ({ integer: "whole number", string: schema.format || "text", boolean: "true or false" }[schema.type] || schema.type || "any JSON") + nullable;
}
function limits(raw) {
  const schema = plain(raw);
  const said = [];
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.minimum !== undefined) said.push(`≥ ${schema.minimum}`);
  if (schema.maximum < 2 ** 31 - 1) said.push(`≤ ${schema.maximum}`);
  if (schema.maxLength !== undefined) said.push(`at most ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) said.push(`at most ${schema.maxItems}`);
  return said.join(", ");
}
function inner(raw) {
  const schema = plain(raw);
  if (schema.$ref) return resolve(schema).properties ? schema.$ref : null;
  if (schema.type === "array") return inner(schema.items || {});
  if (schema.additionalProperties && typeof schema.additionalProperties === "object") return inner(schema.additionalProperties);
  return null;
}
function field(name, schema, required, seen) {
  const ref = inner(schema);
  const more = ref && !seen.includes(ref) && seen.length < 4;
  const nested = more && h("details", { ontoggle: (event) => {
    if (event.target.open && event.target.childElementCount === 1) event.target.append(fields(resolve({ $ref: ref }), [...seen, ref]));
  } }, h("summary", null, `fields of ${named(ref)}`));
  return h("div", null,
    h("dt", null, h("code", null, name), h("span", null, typeOf(schema)), limits(schema) && h("span", null, limits(schema)), required && h("em", null, "required")),
    h("dd", null, inline(schema.description || plain(schema).description || ""), nested));
}
function fields(schema, seen = [], wanted = true) {
  const required = wanted ? schema.required || [] : [];
  return h("dl.fields", null, Object.entries(schema.properties || {}).map(([name, one]) => field(name, one, required.includes(name), seen)));
}

/* Code. */
function colour(text) {
  const pre = h("pre");
  const token = /("(?:[^"\\]|\\.)*")|(-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b)|\b(true|false|null)\b/g;
  let last = 0;
  for (const match of text.matchAll(token)) {
    pre.append(text.slice(last, match.index));
    const key = match[1] && /^\s*:/.test(text.slice(match.index + match[0].length, match.index + match[0].length + 3));
    pre.append(key ? match[0] : h(match[1] ? "span.s" : match[2] ? "span.n" : "span.l", null, match[0]));
    last = match.index + match[0].length;
  }
  pre.append(text.slice(last));
  return pre;
}
/* JSON as a person would write it: what is short stays on one line. */
function neat(value, indent = "") {
  const flat = JSON.stringify(value).replace(/("(?:[^"\\]|\\.)*")|([:,])/g, (all, text, mark) => text || mark + " ");
  if (value === null || typeof value !== "object" || indent.length + flat.length < 62) return flat;
  const deeper = indent + "  ";
  const items = Array.isArray(value) ? value.map((one) => neat(one, deeper)) : Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${neat(one, deeper)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${items.map((item) => deeper + item).join(",\n")}\n${indent}${close}`;
}
const pretty = (value) => typeof value === "string" ? value : neat(value);
function copier(text) {
  return h("button", { type: "button", onclick: async (event) => {
    await navigator.clipboard.writeText(text());
    event.target.textContent = "Copied";
    setTimeout(() => { event.target.textContent = "Copy"; }, 1200);
  } }, "Copy");
}
function panel(title, content, ...buttons) {
  return h("div.panel", null, h("header", null, h("span", null, title), buttons), content);
}

/* Calls. */
const exampleOf = (parameter) => parameter.schema && parameter.schema.examples && parameter.schema.examples[0] || parameter.example || parameter.examples && parameter.examples[0];
function bodyOf(operation) {
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  if (!content) return null;
  const schema = resolve(content.schema);
  const example = content.example !== undefined ? content.example : schema.examples ? schema.examples[0] : {};
  return { schema, example };
}
const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;
function curl(verb, path, operation, body) {
  const address = location.origin + path;
  const lines = [`curl${verb === "get" ? "" : ` -X ${verb.toUpperCase()}`} ${/[^\w:/.~+-]/.test(address) ? quoted(address) : address}`];
  const shown = operation["x-runyard-credential"];
  if (operation["x-runyard-scope"] || shown) lines.push(`-H "Authorization: Bearer $${shown ? shown.toUpperCase() : "RUNYARD_API_KEY"}"`);
  if (body !== null) {
    lines.push(`-H 'Content-Type: application/json'`);
    lines.push(`-d ${quoted(body)}`);
  }
  return lines.join(" \\\n  ");
}
function pathWith(path, values) {
  return path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values[name] || `{${name}}`).replace(/%7B|%7D/g, (c) => c === "%7B" ? "{" : "}"));
}

function request(verb, path, operation) {
  const parameters = operation.parameters || [];
  const values = Object.fromEntries(parameters.filter((one) => one.in === "path").map((one) => [one.name, exampleOf(one) || ""]));
  const body = bodyOf(operation);
  const text = body ? neat(body.example) : null;
  const command = curl(verb, pathWith(path, values), operation, text);
  const holder = h("div");
  const show = (which) => {
    const tried = which === "try";
    holder.replaceChildren(panel(tried ? "Try it" : "Request", tried ? attempt(verb, path, operation, values, text) : h("pre", null, command),
      h("button", { type: "button", "aria-pressed": String(!tried), onclick: () => show("curl") }, "curl"),
      h("button", { type: "button", "aria-pressed": String(tried), onclick: () => show("try") }, "Try it"),
      !tried && copier(() => command)));
  };
  show("curl");
  return holder;
}

function attempt(verb, path, operation, values, text) {
  const inputs = {};
  const place = (one) => one.in === "path" ? path.indexOf(`{${one.name}}`) : path.length;
  const given = (operation.parameters || []).filter((one) => one.in !== "header").sort((a, b) => place(a) - place(b));
  const area = text === null ? null : h("textarea", { spellcheck: "false", "aria-label": "Body" });
  if (area) area.value = text;
  const status = h("output");
  const result = h("div");
  const send = async () => {
    const filled = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
    const query = new URLSearchParams(given.filter((one) => one.in === "query" && filled[one.name] !== "").map((one) => [one.name, filled[one.name]]));
    const headers = {};
    if ($("key").value) headers.Authorization = `Bearer ${$("key").value.trim()}`;
    if (area) headers["Content-Type"] = "application/json";
    if (verb !== "get") headers["Idempotency-Key"] = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);
    const began = performance.now();
    status.textContent = "…";
    try {
      const answer = await fetch(pathWith(path, filled) + (query.size ? `?${query}` : ""), { method: verb.toUpperCase(), headers, body: area ? area.value : undefined, credentials: "omit" });
      const raw = await answer.text();
      status.textContent = `${answer.status} ${answer.statusText} in ${Math.round(performance.now() - began)} ms`;
      const json = (answer.headers.get("content-type") || "").includes("json");
      result.replaceChildren(raw ? (json ? colour(neat(JSON.parse(raw))) : h("pre", null, raw)) : h("pre.c", null, "no body"));
    } catch (error) {
      status.textContent = `No answer: ${error.message}`;
    }
  };
  const rows = given.map((one) => {
    inputs[one.name] = h("input", { placeholder: one.in === "query" ? limits(one.schema) || typeOf(one.schema) : "", spellcheck: "false" });
    inputs[one.name].value = values[one.name] || "";
    return h("label", null, one.name, inputs[one.name]);
  });
  return h("form", { onsubmit: (event) => { event.preventDefault(); send(); } },
    h("div.try", null, rows, area && h("label.wide", null, "body", area),
      h("div.row", null, h("button.go", { type: "submit" }, `Send ${verb.toUpperCase()}`), status)), result);
}

function answers(operation) {
  const all = Object.entries(operation.responses);
  const good = all.filter(([status]) => status < "400");
  return [h("ul.answers", null, good.map(([status, answer]) => h(status < "300" ? "li.ok" : "li.meh", null, h("b", null, status), inline(answer.description)))),
    h("details", null, h("summary", null, "problems: ", all.filter(([status]) => status >= "400").map(([status]) => h("code.bad", null, status))),
      h("dl.fields", null, all.filter(([status]) => status >= "400").map(([status, answer]) =>
        h("div", null, h("dt", null, h("code", null, status)), h("dd", null, inline(answer.description))))))];
}
function responsePanel(operation) {
  const [status, answer] = Object.entries(operation.responses).find(([code]) => code.startsWith("2"));
  const [media, content] = Object.entries(answer.content || {})[0] || [];
  if (!content || content.example === undefined) return null;
  const text = pretty(content.example);
  return panel(`${status} · ${media}`, media.includes("json") ? colour(text) : h("pre", null, text), copier(() => text));
}

function call(verb, path, operation) {
  const body = bodyOf(operation);
  const by = (place) => (operation.parameters || []).filter((one) => one.in === place);
  const ordered = by("path").sort((a, b) => path.indexOf(`{${a.name}}`) - path.indexOf(`{${b.name}}`));
  const listed = (title, list) => list.length > 0 && [h("h5", null, title), h("dl.fields", null, list.map((one) => field(one.name, { ...plain(one.schema), nullable: false, description: one.description }, one.required && one.in !== "path", [])))];
  const answer = Object.values(operation.responses)[0];
  const media = Object.values(answer.content || {})[0];
  const ref = media && media.schema && media.schema.$ref;
  const scope = operation["x-runyard-scope"];
  const shown = operation["x-runyard-credential"];
  const text = (operation.description || "").replace(/\n\nNeeds (the scope `\w+`|an? [a-z ]+)\.$/, "");
  return h("section.op", { id: operation.operationId, "data-words": `${verb} ${path} ${operation.summary} ${text}`.toLowerCase() },
    h("div", null,
      h("h3", null, h("a", { href: `#${operation.operationId}` }, operation.summary)),
      h("p.route", null, h(`span.verb.${verb}`, null, verb.toUpperCase()),
        h("span", null, path.split(/(\{\w+\})/).map((part) => part.startsWith("{") ? h("b", null, part) : part)),
        h("span.scope", null, scope ? `scope: ${scope}` : shown ? shown.replace("_", " ") : "no key needed")),
      h("div.text", null, prose(text)),
      listed("Path", ordered), listed("Query", by("query")), listed("Headers", by("header")),
      body && Object.keys(body.schema.properties || {}).length > 0 && [h("h5", null, "Body"), fields(body.schema)],
      ref && [h("h5", null, "Answer"), h("details", { ontoggle: (event) => {
        if (event.target.open && event.target.childElementCount === 1) event.target.append(fields(resolve({ $ref: ref }), [ref], false));
      } }, h("summary", null, `fields of ${named(ref)}`))],
      h("h5", null, "Statuses"), answers(operation)),
    h("div", null, request(verb, path, operation), responsePanel(operation)));
}

function operations(tag) {
  const found = [];
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const verb of VERBS) if (item[verb] && (item[verb].tags || [])[0] === tag) found.push([verb, path, item[verb]]);
  }
  return found.sort((a, b) => a[2]["x-order"] - b[2]["x-order"]);
}

const find = (id) => {
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const verb of VERBS) if (item[verb] && item[verb].operationId === id) return [verb, path, item[verb]];
  }
};
function step(id, title, query = "") {
  const [verb, path, operation] = find(id);
  const values = Object.fromEntries((operation.parameters || []).filter((one) => one.in === "path").map((one) => [one.name, exampleOf(one)]));
  const body = bodyOf(operation);
  const command = curl(verb, pathWith(path, values) + query, operation, body && neat(body.example));
  return h("li", null, panel(title, h("pre", null, command), copier(() => command)));
}

function build() {
  $("version").textContent = doc.info.version;
  const [lead, ...rest] = doc.info.description.trim().split(/\n{2,}/);
  const content = [
    h("section", { id: "top" },
      h("h1", null, "Runyard API"), h("p.lead", null, inline(lead)),
      h("div.cols", null, h("div.intro", null, prose(rest.join("\n\n"))),
        h("ol.steps", null,
          h("li", null, panel("Your key", h("pre", null, "export RUNYARD_API_KEY=$(cat ~/.runyard/admin.key)"), copier(() => "export RUNYARD_API_KEY=$(cat ~/.runyard/admin.key)"))),
          step("put_dag", "Put a DAG"),
          step("create_run", "Trigger it, and wait for the end", "?wait=30"),
          step("get_task", "Read a result")))),
  ];
  const nav = [];
  for (const tag of doc.tags) {
    const found = operations(tag.name);
    if (!found.length) continue;
    const anchor = `tag-${tag.name.toLowerCase().replace(/\W+/g, "-")}`;
    content.push(h("section", { "data-tag": true }, h("h2", { id: anchor }, h("a", { href: `#${anchor}` }, tag.name)), h("p", null, inline(tag.description)), found.map((one) => call(...one))));
    nav.push(h("div", null, h("h4", null, tag.name), found.map(([verb, , operation]) =>
      h("a", { href: `#${operation.operationId}` }, h(`i.${verb}`, null, verb === "delete" ? "DEL" : verb.toUpperCase()), operation.summary))));
  }
  content.push(problems(), schemas());
  nav.push(h("div", null, h("h4", null, "Reference"), h("a", { href: "#problems" }, h("i"), "Problems"), h("a", { href: "#schemas" }, h("i"), "Schemas")));
  $("content").replaceChildren(...content);
  $("content").removeAttribute("aria-busy");
  $("nav").replaceChildren(...nav);
  follow();
  if (location.hash) { const target = document.getElementById(decodeURIComponent(location.hash.slice(1))); if (target) target.scrollIntoView({ behavior: "instant" }); }
}

function problems() {
  return h("section", null, h("h2", { id: "problems" }, h("a", { href: "#problems" }, "Problems")),
    h("p", null, inline("What goes wrong is answered as `application/problem+json`. Branch on `code`: it is stable.")),
    h("table", null, h("thead", null, h("tr", null, ["Code", "Status", "Meaning", "Way out", "Retry"].map((name) => h("th", null, name)))),
      h("tbody", null, doc["x-problems"].map((one) => h("tr", { id: `problem-${one.code}` }, h("td", null, h("code", null, one.code)), h("td", null, String(one.status)),
        h("td", null, one.title), h("td", null, inline(one.hint)), h("td", null, one.retryable ? "yes" : ""))))));
}
function schemas() {
  const list = Object.entries(doc.components.schemas).filter(([, schema]) => schema.properties).sort(([a], [b]) => a.localeCompare(b));
  return h("section", null, h("h2", { id: "schemas" }, h("a", { href: "#schemas" }, "Schemas")), h("p", null, "Everything that is sent and answered, field by field."),
    list.map(([name, schema]) => h("div.schema", { id: `schema-${name}` }, h("h3", null, h("a", { href: `#schema-${name}` }, name)), h("div.text", null, prose(schema.description)),
      h("details", { ontoggle: (event) => {
        if (event.target.open && event.target.childElementCount === 1) event.target.append(fields(schema, [`#/components/schemas/${name}`]));
      } }, h("summary", null, `${Object.keys(schema.properties).length} fields`)))));
}

/* The call that is being read is marked in the list. */
function follow() {
  const links = new Map([...$("nav").querySelectorAll("a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting || !links.has(entry.target.id)) continue;
      for (const link of links.values()) link.classList.remove("here");
      links.get(entry.target.id).classList.add("here");
    }
  }, { rootMargin: "-80px 0px -75% 0px" });
  for (const section of document.querySelectorAll(".op")) observer.observe(section);
}

function search() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let any = false;
  for (const group of $("nav").children) {
    let shown = 0;
    for (const link of group.querySelectorAll("a")) {
      const section = document.getElementById(link.getAttribute("href").slice(1));
      const text = `${link.textContent} ${section ? section.dataset.words || "" : ""}`.toLowerCase();
      link.hidden = !words.every((word) => text.includes(word));
      link.style.display = link.hidden ? "none" : "";
      if (!link.hidden) shown++;
    }
    group.hidden = !shown;
    any = any || shown > 0;
  }
  $("nothing").hidden = any;
}

async function recognise() {
  const key = $("key").value.trim();
  const who = $("who");
  who.className = "";
  if (!key) { who.textContent = "Paste a key to try calls here. It stays in this tab."; sessionStorage.removeItem("runyard-key"); return; }
  sessionStorage.setItem("runyard-key", key);
  const answer = await fetch("/api/v1/schema/dag", { headers: { Authorization: `Bearer ${key}` }, credentials: "omit" }).catch(() => null);
  if (!answer) { who.textContent = "The service does not answer."; who.className = "bad"; return; }
  who.textContent = answer.status === 401 ? "This key is not valid." : "The key is valid.";
  who.className = answer.status === 401 ? "bad" : "good";
}

$("search").addEventListener("input", search);
$("key").addEventListener("change", recognise);
$("login").addEventListener("submit", (event) => { event.preventDefault(); recognise(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); }
});
(async () => {
  $("key").value = sessionStorage.getItem("runyard-key") || "";
  if ($("key").value) recognise();
  try {
    doc = await (await fetch("/openapi.json")).json();
    build();
  } catch (error) {
    $("content").replaceChildren(h("p.loading", null, `The document could not be read: ${error.message}`));
  }
})();
