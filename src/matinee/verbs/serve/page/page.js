"use strict";

const COUNT = 10; // recommended items
const PAUSE = 150; // milliseconds after a key before a search
const MEASURES = { score: "By score, higher is better", predicted_rating: "By predicted rating" };
const mine = []; // {item, title, rating}, oldest first
let served = { reads: null, rating_scale: null };
let search = 0; // the newest search and the newest list; answers to older ones are dropped
let listing = 0;
let offered = []; // {item, button} of the newest search

const byId = (id) => document.getElementById(id);

// Titles are foreign text: they become text nodes, never markup.
function element(name, text, properties = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  return Object.assign(made, properties);
}

function entry(item, ...parts) {
  const line = document.createElement("li");
  line.append(element("span", item.title, { className: "title" }), ...parts);
  return line;
}

async function ask(path, body) {
  const options = body && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const content = await answer.json().catch(() => ({ error: "The answer cannot be read." }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

async function attempt(action) {
  try {
    await action();
    byId("error").hidden = true;
  } catch (error) {
    byId("error").textContent = error.message;
    byId("error").hidden = false;
  }
}

function someone() {
  if (served.reads === "ratings") {
    return mine.length ? { ratings: mine.map(({ item, rating }) => ({ item, rating })) } : {};
  }
  return served.reads ? { history: mine.map(({ item }) => item) } : {};
}

function levels() {
  const [low, high] = served.rating_scale;
  const step = high - low <= 5 ? 0.5 : Math.max(1, Math.round((high - low) / 10));
  const values = [];
  for (let value = low; value <= high; value += step) values.push(value);
  return values;
}

function stars(chosen) {
  const select = element("select", "", { ariaLabel: `Rating of ${chosen.title}` });
  for (const value of levels()) select.append(element("option", String(value), { value }));
  select.value = String(chosen.rating);
  select.addEventListener("change", () => {
    chosen.rating = Number(select.value);
    recommend();
  });
  return select;
}

function isMine(item) {
  return mine.some((one) => one.item === item.item);
}

function mark() {
  for (const { item, button } of offered) {
    button.textContent = isMine(item) ? "Added" : "Add";
    button.ariaLabel = `${button.textContent} ${item.title}`;
  }
}

function add(item) {
  if (isMine(item)) return;
  mine.push({ ...item, rating: served.rating_scale && levels().at(-1) });
  showMine();
  recommend();
}

function showMine() {
  mark();
  byId("mine-empty").textContent = {
    ratings: "Add items and rate them.",
    history: "Add items, oldest first.",
    null: "This model answers for users of the data only.",
  }[served.reads];
  byId("mine-empty").hidden = mine.length > 0;
  byId("mine").replaceChildren(
    ...mine.map((one, place) => {
      const remove = element("button", "Remove", { type: "button", ariaLabel: `Remove ${one.title}` });
      remove.addEventListener("click", () => {
        mine.splice(place, 1);
        showMine();
        recommend();
        byId("query").focus();
      });
      return entry(one, ...(served.reads === "ratings" ? [stars(one)] : []), remove);
    }),
  );
}

function find() {
  const turn = ++search;
  return attempt(async () => {
    const query = byId("query").value.trim();
    const { items } = await ask(`items?limit=8&query=${encodeURIComponent(query)}`);
    if (turn !== search) return;
    offered = items.map((item) => {
      const button = element("button", "", { type: "button" });
      button.addEventListener("click", () => add(item));
      return { item, button };
    });
    mark();
    const lines = offered.map(({ item, button }) => entry(item, ...(served.reads ? [button] : [])));
    const nothing = element("li", "No title holds these words.", { className: "faint" });
    byId("found").replaceChildren(...(lines.length ? lines : [nothing]));
  });
}

function recommend() {
  const turn = ++listing;
  return attempt(async () => {
    const asked = someone();
    const { items, measure } = await ask("recommend", { ...asked, top_k: COUNT });
    if (turn !== listing) return;
    byId("measure").textContent = MEASURES[measure];
    const lines = items.map((item) => {
      const line = entry(item, element("span", item.value.toFixed(2), { className: "value" }));
      if (mine.length) line.append(explaining(asked, item, line));
      return line;
    });
    const nothing = element("li", "No item is left.", { className: "faint" });
    byId("list").replaceChildren(...(lines.length ? lines : [nothing]));
  });
}

function explaining(asked, item, line) {
  const button = element("button", "Why?", { type: "button", ariaLabel: `Why ${item.title}?` });
  button.addEventListener("click", () =>
    attempt(async () => {
      const { items } = await ask("why", { ...asked, item: item.item });
      const named = items
        .filter(({ share }) => share > 0)
        .map(({ title, share }) => `${title} (${Math.round(share * 100)} %)`);
      const words = named.length ? `Because of ${named.join(", ")}.` : "None of your items raises it.";
      line.append(element("p", words, { className: "why" }));
      button.remove();
    }),
  );
  return button;
}

let pause;
byId("query").addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(find, PAUSE);
});

attempt(async () => {
  served = await ask("health");
  byId("model").textContent = `${served.model}, ${served.items.toLocaleString("en")} items`;
  showMine();
  await Promise.all([find(), recommend()]);
});
