"use strict";

const TOP = 3;
const AT_ONCE = 4; // requests
const at = (id) => document.getElementById(id);

/** Make an element with text and attributes. */
function make(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Fetch JSON; what was refused is an error with the server's words. */
async function ask(path, options) {
  const response = await fetch(path, options);
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  const detail = typeof found.detail === "string" ? found.detail : response.statusText;
  throw new Error(`${response.status}: ${detail}`);
}

let known = [];

async function showDomains() {
  const found = await ask("domains");
  known = found.domains;
  at("count").textContent = known.length;
  at("backbone").textContent = found.backbone;
  const chosen = at("domain").value;
  at("domain").replaceChildren(make("option", "All domains", { value: "" }));
  at("domains").replaceChildren();
  for (const it of known) {
    at("domain").append(make("option", `${it.name} (${it.classes.length} classes)`, { value: it.name }));
    const row = make("tr");
    row.append(make("td", it.name, { title: it.classes.slice(0, 30).join(", ") }));
    const results = it.card.results || {};
    const split = ["test", "val"].find((name) => name in results);
    const facts = [
      it.classes.length, it.size, it.adapter, it.parameters.toLocaleString("en"),
      split ? `${results[split].toFixed(1)} % (${split})` : "–",
    ];
    for (const fact of facts) row.append(make("td", fact, { class: "number" }));
    const version = make("td");
    version.append(make("code", it.sha256.slice(0, 12)));
    row.append(version);
    at("domains").append(row);
  }
  at("domain").value = chosen;
}

/** Show a class with a bar. */
function guess({ name, probability }) {
  const made = make("div", undefined, { class: "guess" });
  const line = make("span");
  line.append(make("span", name), make("span", `${(100 * probability).toFixed(1)} %`));
  made.append(line, make("meter", undefined, { value: probability, "aria-label": name }));
  return made;
}

/** Ask one domain about one image, and show its answer. */
async function answer(domain, file, place) {
  try {
    const options = { method: "POST", body: file, headers: { "Content-Type": "image/*" } };
    const path = `predict/${encodeURIComponent(domain)}?top=${TOP}`;
    const found = await ask(path, options);
    place.replaceChildren(make("h3", domain), ...found.images[0].map(guess));
  } catch (error) {
    place.replaceChildren(make("h3", domain), make("p", error.message));
  }
}

/** Show files, and the answers of the chosen domains to each. */
async function show(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/"));
  if (!images.length) {
    at("status").textContent = "Found no images among these files.";
    return;
  }
  const names = at("domain").value ? [at("domain").value] : known.map((it) => it.name);
  const work = [];
  for (const file of images) {
    const entry = make("article");
    const figure = make("figure");
    const url = URL.createObjectURL(file);
    const picture = make("img", undefined, { src: url, alt: file.name });
    for (const end of ["load", "error"]) picture.addEventListener(end, () => URL.revokeObjectURL(url));
    figure.append(picture, make("figcaption", file.name));
    const found = make("div", undefined, { class: "found" });
    entry.append(figure, found);
    at("answers").prepend(entry);
    for (const name of names) {
      const place = make("section");
      place.append(make("h3", name), make("p", "waiting"));
      found.append(place);
      work.push(() => answer(name, file, place));
    }
  }
  const total = work.length;
  at("status").textContent = `Asking ${names.length} of ${known.length} domains about ${images.length} images.`;
  const began = performance.now();
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (work.length) await work.shift()();
  }));
  const took = Math.round(performance.now() - began);
  at("status").textContent = `${total} answers in ${took} ms.`;
}

at("files").addEventListener("change", (event) => {
  show(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
at("form").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("paste", (event) => show(event.clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") show(event.dataTransfer.files);
  });
}
showDomains().catch((error) => { at("status").textContent = error.message; });
