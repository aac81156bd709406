// The page of the monitor: asks the JSON API every two seconds while it is seen, and draws what has changed.
//
// Names, arguments and results come from whoever sends tasks. They reach the document as text nodes and attributes only, through
// `element`; there is no innerHTML here, and the policy of the page (CSP, trusted types) forbids it.
"use strict";

const PAUSE_MS = 2000; // between two looks; longer where an answer takes long, so that looking costs little
const LIMIT = 50; // tasks on a page
const LAST_OFFSET = 10000; // the API refuses more
const KINDS = {
  SUCCESS: "good", FAILURE: "bad", REVOKED: "warn", RETRY: "warn", RUNNING: "busy", STARTED: "busy",
  alive: "good", gone: "bad", unknown: "warn", open: "good", paused: "warn", warning: "warn", bad: "bad", late: "bad",
};
const STATES = [
  "running", "waiting", "queued", "scheduled", "blocked", "retry", "success", "failure", "revoked", "dead", "unfinished", "finished",
];
const SPANS = [["last minute", "1m"], ["last 10 minutes", "10m"], ["last hour", "1h"], ["last day", "1d"], ["last week", "7d"]];

let clockAhead = 0; // ms by which the clock of the file's machine is ahead of the browser's

// -- words ---------------------------------------------------------------------------------------------------------

// What cannot be seen is shown as an escape: control and format characters (bidirectional ones, too), lone surrogates.
function visible(text, keep = "") {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (letter) => {
    if (keep.includes(letter)) return letter;
    const number = letter.codePointAt(0);
    if (number < 256) return "\\x" + number.toString(16).padStart(2, "0");
    return number < 65536 ? "\\u" + number.toString(16).padStart(4, "0") : "\\U" + number.toString(16).padStart(8, "0");
  });
}

function count(number) {
  return number === null || number === undefined ? "…" : number.toLocaleString("en");
}

function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    const many = Math.floor(left / size);
    left %= size;
    if (many || parts.length) parts.push([many, unit]);
  }
  return parts.slice(0, 2).filter(([many]) => many).map(([many, unit]) => `${many} ${unit}`).join(" ") || "0 s";
}

function ago(iso) {
  const seconds = (Date.now() + clockAhead - Date.parse(iso)) / 1000;
  return seconds < -0.5 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
}

function took(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.001) return "< 1 ms";
  return seconds < 1 ? `${seconds.toFixed(3)} s` : seconds < 60 ? `${seconds.toFixed(2)} s` : span(seconds);
}

function size(bytes) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (bytes < 1024) return unit === "B" ? `${bytes} B` : `${bytes.toFixed(1)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} TiB`;
}

// -- nodes ---------------------------------------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== "").map(
    (child) => (child instanceof Node ? child : document.createTextNode(visible(String(child)))),
  ));
  return node;
}

function link(page, query, ...children) {
  const words = new URLSearchParams(query).toString();
  return element("a", { href: (page || ".") + (words ? `?${words}` : ""), "data-page": "" }, ...children);
}

function badge(word) {
  return element("span", { class: `badge ${KINDS[word] || ""}` }, word);
}

// A point in time: relative, with the exact one as its title.
function point(iso, missing = "–") {
  if (!iso) return element("span", { class: "quiet" }, missing);
  return element("time", { datetime: iso, title: `${iso}\n${new Date(iso).toLocaleString()} here` }, ago(iso));
}

function table(columns, rows, empty) {
  if (!rows.length) return element("div", { class: "card empty" }, empty);
  const head = columns.map(([title, kind]) => element("th", { class: kind || null, scope: "col" }, title));
  const body = rows.map((cells) => element("tr", {}, cells.map((cell, place) => element("td", { class: columns[place][1] || null }, cell))));
  return element("div", { class: "card" }, element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

function taskName(task) {
  return [link("task", { id: task.id }, task.name || "(no name)"), element("span", { class: "id" }, task.id)];
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("div", { class: "card" }, element("dl", {}, shown.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
}

function block(title, text, className = "") {
  const pre = element("pre", { class: className });
  pre.textContent = visible(text, "\n\t");
  return [element("h2", {}, title), element("div", { class: "card" }, pre)];
}

// -- pages: each has an address to ask, and draws the answer -------------------------------------------------------------

function tile(label, value, more, target, kind) {
  const inside = [element("span", { class: "label" }, label), element("span", { class: "value" }, value), element("span", { class: "more" }, more)];
  return target
    ? element("a", { class: `tile ${kind || ""}`, href: target, "data-page": "" }, inside)
    : element("div", { class: `tile ${kind || ""}` }, inside);
}

function tiles(data) {
  const waits = data.unfinished || {};
  const ended = data.ended;
  const sum = (counts) => Object.values(counts).reduce((total, each) => total + each, 0);
  const failed = ended && (ended.last_hour.FAILURE || 0);
  const rate = ended && sum(ended.last_minute) / 60;
  return element(
    "div", { class: "tiles" },
    tile("Running", count(waits.claimed), workersAlive(data.workers), "tasks?state=running"),
    tile("Waiting", count(waits.queued), oldest(data.queues), "tasks?state=queued"),
    tile("Scheduled", count(waits.scheduled), data.next_due ? ["next ", point(data.next_due)] : "", "tasks?state=scheduled"),
    tile("Blocked", count(waits.blocked), waits.blocked ? "wait for other tasks" : "", "tasks?state=blocked"),
    tile("Ended", ended ? count(sum(ended.total)) : "…", ended ? `${count(sum(ended.last_minute))} in the last minute${rate < 1 ? "" : `, ${rate.toFixed(rate < 10 ? 1 : 0)}/s`}` : "counting", "tasks?state=finished"),
    tile("Failed", ended ? count(ended.total.FAILURE || 0) : "…", ended ? `${count(failed)} in the last hour` : "counting", "tasks?state=failure", failed ? "bad" : ""),
    ended && ended.dead ? tile("Dead letters", count(ended.dead), "given up", "tasks?state=dead", "bad") : null,
  );
}

function workersAlive(workers) {
  const alive = workers.filter((worker) => worker.alive).length;
  return alive > 1 ? `${alive} workers live` : `${alive ? "one" : "no"} worker lives`;
}

function oldest(queues) {
  const since = (queues || []).map((queue) => queue.oldest).filter(Boolean).sort()[0];
  return since ? ["oldest ", point(since)] : "";
}

function findings(data) {
  return (data.findings || []).map((found) => element(
    "p", { class: `notice ${found.level === "bad" ? "bad" : "warning"}` },
    element("b", {}, `${found.about}: `), found.text, found.advice ? [". ", element("code", {}, found.advice)] : null,
  ));
}

function workerTable(workers) {
  const rows = workers.map((worker) => [
    worker.name, badge(worker.alive ? "alive" : worker.alive === null ? "unknown" : "gone"), worker.pool ? `${worker.pool} × ${worker.concurrency}` : "?",
    worker.pid, point(worker.since), worker.queues ? worker.queues.join(", ") : "all", count(worker.running.length),
    count(worker.processed), count(worker.failed),
  ]);
  const columns = [
    ["Worker", "name"], ["State", "short"], ["Pool", "short"], ["Pid", "number"], ["Since", "time"], ["Queues", "name"],
    ["Running", "number"], ["Processed", "number"], ["Failed", "number"],
  ];
  return table(columns, rows, "No worker is signed on.");
}

function queueTable(queues) {
  const rows = (queues || []).map((queue) => [
    link("tasks", { queue: queue.name }, queue.name), badge(queue.paused ? "paused" : "open"), count(queue.waiting),
    point(queue.oldest), count(queue.running), count(queue.scheduled), count(queue.blocked),
  ]);
  const columns = [
    ["Queue", "name"], ["State", "short"], ["Waiting", "number"], ["Oldest", "time"], ["Running", "number"], ["Scheduled", "number"],
    ["Blocked", "number"],
  ];
  return table(columns, rows, queues ? "No queue has been used yet." : "Counting…");
}

function scheduleTable(entries) {
  const rows = entries.map((entry) => [
    [entry.name, entry.note ? element("span", { class: "note" }, entry.note) : null],
    entry.task,
    `${entry.when}${entry.zone ? ` (${entry.zone})` : ""}`,
    entry.paused ? badge("paused") : [point(entry.next, "never again"), isLate(entry) ? [" ", badge("late")] : null],
    entry.last_id ? link("task", { id: entry.last_id }, point(entry.last)) : point(entry.last),
    count(entry.runs), entry.from,
  ]);
  const columns = [
    ["Entry", "name"], ["Task", "name"], ["When", "name"], ["Next run", "time"], ["Last run", "time"], ["Runs", "number"], ["From", "short"],
  ];
  return table(columns, rows, "The schedule is empty. Entries of a configuration come with the first beat that starts.");
}

function isLate(entry) {
  return entry.next && Date.parse(entry.next) < Date.now() + clockAhead - 10000;
}

function drawFile(data) {
  const file = data.file;
  return [
    element("h1", {}, "File"),
    facts([
      ["path", element("span", { class: "mono" }, file.path)],
      ["size", `${size(file.bytes)}${file.free_bytes ? `, ${size(file.free_bytes)} of it free` : ""}`],
      ["log", size(file.log_bytes)],
      ["expired results", file.expired ? `${count(file.expired)}${file.expired >= 10000 ? " or more" : ""} to be removed by a worker` : "none"],
      ["SQLite", file.sqlite],
      ["litetq", data.version],
    ]),
    element("h2", {}, "Health"),
    data.findings === null ? element("p", { class: "quiet" }, "Looking…")
      : data.findings.length ? findings(data) : element("p", { class: "notice" }, "Nothing is wrong, as far as a look can tell; litetq doctor reads all of the file."),
  ];
}

// One page per look at the overview; `draw` gets its answer.
function glance(draw) {
  return { address: () => "api/overview", draw: (data, view) => view.replaceChildren(...draw(data).flat(9)) };
}

const overview = glance((data) => [
  tiles(data), findings(data),
  element("h2", {}, "Workers"), workerTable(data.workers),
  element("h2", {}, "Queues"), queueTable(data.queues),
  data.schedule.length ? [element("h2", {}, "Schedule"), scheduleTable(coming(data.schedule))] : [],
]);

function coming(entries) {
  return entries.filter((entry) => entry.next).sort((a, b) => Date.parse(a.next) - Date.parse(b.next)).slice(0, 5);
}

const workers = glance((data) => [
  element("h1", {}, "Workers"), workerTable(data.workers),
  data.workers.filter((worker) => worker.running.length).map((worker) => [
    element("h2", {}, `What ${worker.name} runs`),
    table([["Task", "name"], ["Queue", "short"]], worker.running.map((task) => [taskName(task), task.queue]), ""),
  ]),
  element("p", { class: "quiet" }, "Processed and failed: as many as are still on record."),
]);

const queues = glance((data) => [element("h1", {}, "Queues"), queueTable(data.queues)]);
const schedule = glance((data) => [element("h1", {}, "Schedule"), scheduleTable(data.schedule)]);
const file = glance(drawFile);

// Filters stand in the address of the page, so that it can be kept and sent to others.
const tasks = {
  mount(view) {
    const said = new URLSearchParams(location.search);
    const select = (name, title, words, all) => {
      const known = words.some(([value]) => value === said.get(name)) || !said.get(name) ? words : [...words, [said.get(name), said.get(name)]];
      return element("label", {}, title, element("select", { name }, [["", all], ...known].map(
        ([value, shown]) => element("option", { value, selected: value === (said.get(name) || "") }, shown),
      )));
    };
    const input = (name, title, hint) => element("label", { class: "grow" }, title, element("input", {
      name, value: said.get(name) || "", placeholder: hint, autocomplete: "off", spellcheck: "false", type: "search",
    }));
    const form = element(
      "form", { class: "filters", role: "search" },
      select("state", "State", STATES.map((state) => [state, state]), "all"),
      input("name", "Name", "part of it, * and ? are wild"),
      select("queue", "Queue", [], "all"),
      input("text", "In the arguments", "text"),
      select("newer", "Sent", SPANS.map(([title, value]) => [value, title]), "at any time"),
    );
    let later;
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const what of ["input", "change"]) {
      form.addEventListener(what, (event) => {
        clearTimeout(later);
        later = setTimeout(() => apply(form), event.target.tagName === "SELECT" ? 0 : 300);
      });
    }
    view.replaceChildren(element("h1", {}, "Tasks"), form, element("div", { id: "found" }));
    ask("api/overview").then((data) => addQueues(form, data.queues || []), () => {});
  },
  address() {
    const query = new URLSearchParams(location.search);
    const name = query.get("name");
    if (name && !/[*?,]/.test(name)) query.set("name", `*${name}*`);
    query.set("limit", LIMIT);
    return `api/list?${query}`;
  },
  draw(data, view) {
    const place = view.querySelector("#found");
    place.replaceChildren(taskTable(data.tasks), pager(data));
  },
};

function addQueues(form, queues) {
  const select = form.elements.queue;
  const known = new Set([...select.options].map((option) => option.value));
  select.append(...queues.filter((queue) => !known.has(queue.name)).map((queue) => element("option", { value: queue.name }, queue.name)));
}

// Put what the form says into the address, from the newest task on.
function apply(form) {
  const said = [...new FormData(form)].filter(([, value]) => value.trim());
  const words = new URLSearchParams(said).toString();
  const now = new URLSearchParams(location.search);
  ["before", "offset"].forEach((name) => now.delete(name));
  if (words === now.toString()) return;
  history.replaceState(null, "", words ? `?${words}` : location.pathname);
  look();
}

function taskTable(found) {
  const rows = found.map((task) => [
    [badge(task.state), task.dead ? badge("dead") : null, task.paused ? badge("paused") : null],
    taskName(task), task.queue, point(task.sent), took(task.runtime), task.worker, about(task),
  ]);
  const columns = [["State", "short"], ["Task", "name"], ["Queue", "short"], ["Sent", "time"], ["Took", "number"], ["Worker", "short"], ["Arguments → result", "wide"]];
  return table(columns, rows, location.search ? "No such task." : "No task yet.");
}

function about(task) {
  const due = task.state === "SCHEDULED" && task.due ? [" due ", point(task.due)] : null;
  const came = task.result === null ? task.reason : task.result;
  return element("span", { title: visible([task.args, came].filter(Boolean).join("\n→ ")) },
    task.args, due, came ? [element("span", { class: "arrow" }, " → "), came] : null);
}

function pager(data) {
  const query = new URLSearchParams(location.search);
  const offset = Number(query.get("offset") || 0);
  const go = (to) => {
    // Pages are counted from the moment of the first one: what is sent meanwhile moves nothing.
    if (!query.get("before")) query.set("before", data.now);
    query.set("offset", to);
    if (to <= 0) ["before", "offset"].forEach((name) => query.delete(name));
    open(`tasks?${query}`);
  };
  const button = (title, to, able) => {
    const node = element("button", { type: "button", disabled: !able }, title);
    node.addEventListener("click", () => go(to));
    return node;
  };
  const last = offset + data.tasks.length;
  const isEnd = data.more && last + LIMIT > LAST_OFFSET;
  const words = !data.tasks.length ? "" : `${count(offset + 1)} to ${count(last)}${data.more ? "" : `, these are all`}`;
  return element("div", { class: "pager" },
    element("span", { class: "where" }, words, isEnd ? "; a filter shows what is older" : ""),
    button("← Newer", offset - LIMIT, offset > 0), button("Older →", offset + LIMIT, data.more && !isEnd));
}

const task = {
  mount(view) {
    view.replaceChildren(element("div", { id: "task" }), element("div", { id: "workflow" }));
    this.looks = 0;
  },
  id: () => new URLSearchParams(location.search).get("id") || "",
  address() {
    return `api/task?${new URLSearchParams({ id: this.id() })}`;
  },
  draw(data, view) {
    const failed = data.state === "FAILURE" || data.state === "REVOKED";
    view.querySelector("#task").replaceChildren(...[
      element("h1", {}, data.name || "(no name)", badge(data.state), data.dead ? badge("dead") : null),
      facts([
        ["id", element("span", { class: "mono" }, data.id)],
        ["queue", data.queue && link("tasks", { queue: data.queue }, data.queue)],
        ["worker", data.worker],
        ["sent", data.sent && point(data.sent)],
        ["due", data.due && point(data.due)],
        ["started", data.started && point(data.started)],
        ["ended", data.ended && [point(data.ended), data.runtime === null ? null : `, after ${took(data.runtime)}`]],
        ["retries", data.retries || ""],
        ["reason", data.reason],
        ["parent", data.parent && link("task", { id: data.parent }, element("span", { class: "mono" }, data.parent))],
      ]),
      block("Arguments", data.args),
      data.result === null ? [] : block(failed ? "Error" : data.ended ? "Result" : "It says", data.result),
      data.attempts.length ? [element("h2", {}, "Earlier attempts"), attemptTable(data.attempts)] : [],
      data.traceback ? block("Traceback", data.traceback) : [],
    ].flat(9));
  },
  // The whole workflow is looked for in all of the file: seldom, and after the task is drawn.
  async after(view) {
    if (this.looks++ % 5) return;
    const id = this.id();
    const data = await ask(`api/workflow?${new URLSearchParams({ id })}`);
    const place = view.querySelector("#workflow");
    if (!place || id !== this.id()) return;
    place.replaceChildren(...(data.total > 1 ? [element("h2", {}, `Workflow of ${count(data.total)} tasks`), tree(data, id)] : []));
  },
};

function tree(data, id) {
  const lines = data.tasks.map((each) => element(
    "div", { class: each.id === id ? "line own" : "line" },
    each.before, link("task", { id: each.id }, each.name || "(no name)"), badge(each.state),
    element("span", { class: "quiet" }, each.runtime === null ? "" : `  ${took(each.runtime)}`),
  ));
  const rest = data.total - data.tasks.length;
  return element("div", { class: "card tree" }, lines, rest > 0 ? `and ${count(rest)} more: litetq show` : null);
}

function attemptTable(attempts) {
  const rows = attempts.map((each) => [each.attempt, each.outcome, point(each.ended), each.worker, each.error]);
  return table([["Attempt", "number"], ["Came of it", "short"], ["Ended", "time"], ["Worker", "short"], ["Error", "wide wrap"]], rows, "");
}

const PAGES = { "": overview, tasks, task, workers, queues, schedule, file };

// -- looking -------------------------------------------------------------------------------------------------------

let turn = 0; // of the look that counts; older ones come too late
let timer;
let drawn = ""; // what is on the page, as JSON

function pageName() {
  const name = location.pathname.split("/").pop();
  return name in PAGES ? name : "";
}

async function ask(address) {
  const reply = await fetch(address, { cache: "no-store" });
  const data = await reply.json().catch(() => ({ error: `${reply.status} ${reply.statusText}` }));
  if (!reply.ok) throw new Error(data.error || reply.statusText);
  if (data.now) clockAhead = Date.parse(data.now) - Date.now();
  return data;
}

async function look() {
  clearTimeout(timer);
  const mine = ++turn;
  if (document.hidden) return pulse("resting", "paused");
  const page = PAGES[pageName()];
  const view = document.getElementById("view");
  const began = performance.now();
  try {
    const data = await ask(page.address());
    if (mine !== turn) return;
    show(page, data, view);
    if (page.after) await page.after(view);
    if (mine === turn) pulse("", "live");
  } catch (error) {
    if (mine !== turn) return;
    const isGone = error instanceof TypeError; // so says fetch
    pulse("lost", isGone ? "not connected" : "no answer");
    if (!isGone) complain(view, error.message);
  }
  const pause = Math.max(PAUSE_MS, 10 * (performance.now() - began));
  if (mine === turn) timer = setTimeout(look, pause);
}

// Draw what has changed. While something is selected the page stands still, so that it can be copied.
function show(page, data, view) {
  const { now, ...facts } = data;
  const text = JSON.stringify(facts);
  const isSelected = !getSelection().isCollapsed && view.contains(getSelection().anchorNode);
  if (text === drawn || (isSelected && drawn)) return;
  drawn = text;
  view.querySelector("#complaint")?.remove();
  page.draw(data, view);
}

function nameFile(data) {
  const node = document.getElementById("file-name");
  node.textContent = visible(data.file.path.split(/[\\/]/).pop());
  node.title = visible(data.file.path);
}

function complain(view, sentence) {
  view.querySelector("#complaint")?.remove();
  view.prepend(element("p", { class: "notice bad", id: "complaint" }, sentence));
  drawn = "";
}

function pulse(kind, word) {
  const node = document.getElementById("pulse");
  node.className = `pulse ${kind}`;
  if (node.textContent !== word) node.textContent = word;
}

// Show the page that the address names.
function enter() {
  const name = pageName();
  const page = PAGES[name];
  const view = document.getElementById("view");
  drawn = "";
  view.replaceChildren();
  if (page.mount) page.mount(view);
  for (const each of document.querySelectorAll("nav a")) {
    const target = new URL(each.href).pathname.split("/").pop();
    each.toggleAttribute("aria-current", target === name || (name === "task" && target === "tasks"));
  }
  document.title = `${name || "overview"} · litetq`;
  look();
}

function open(address) {
  history.pushState(null, "", address);
  scrollTo(0, 0);
  enter();
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("a[data-page]");
  if (!target || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  open(target.href);
});
addEventListener("popstate", enter);
document.addEventListener("visibilitychange", look);
setInterval(() => {
  if (document.hidden) return;
  for (const node of document.querySelectorAll("time")) {
    const text = ago(node.dateTime);
    if (node.textContent !== text) node.textContent = text;
  }
}, 1000);
ask("api/overview").then(nameFile, () => {});
enter();
