"use strict";
// Shows what /api/status, /api/predictions and /stream/N.mjpeg say. The status, asked once a second, decides whether the
// connection holds: a cable that is pulled closes no stream.

const POINTS = 300;
const POLL_MS = 1000;
const PATIENCE_MS = 4000;
const OLD_S = 5;
const $ = (id) => document.getElementById(id);
const percent = (share) => (100 * share).toFixed(share >= 0.9995 ? 0 : 1) + " %";

const STATES = {
  opening: ["wait", "Opening"],
  live: ["good", "Live"],
  stalled: ["wait", "Stalled"],
  reconnecting: ["wait", "Reconnecting"],
  ended: ["done", "Ended"],
  failed: ["bad", "Failed"],
};

let sources = [];
let selected = 0;
let connected = null;
let events = null;
let watched = "";
let retry = 0;
let newest = [];
let sums = [];
let history = [];

function seconds(value) {
  if (value === null) return "–";
  if (value < 1) return "just now";
  if (value < 90) return Math.round(value) + " s ago";
  return Math.round(value / 60) + " min ago";
}

function say(element, text) {
  // A text that is the same is not written again: screen readers would read it again.
  if (element.textContent !== text) element.textContent = text;
}

// ------------------------------------------------------------------------------------------------ connection

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/api/status", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.statusText);
      const status = await answer.json();
      if (connected !== true) reopen();
      connect(true);
      show(status);
    } catch (error) {
      connect(false);
      record(null);
    }
  }
  setTimeout(poll, POLL_MS);
}

function connect(works) {
  if (connected === works) return;
  connected = works;
  $("banner").hidden = works;
  const state = $("connection");
  say(state, works ? "Connected" : "Not connected");
  state.dataset.level = works ? "good" : "bad";
  if (!works) {
    // What a browser shows of a stream that broke is an empty box.
    $("image").removeAttribute("src");
    $("image").hidden = true;
    watched = "";
  }
  freshen();
}

function reopen() {
  listen();
  watch(true);
}

function listen() {
  if (events) events.close();
  events = new EventSource("/api/predictions?max_per_s=10");
  events.onmessage = (event) => predicted(JSON.parse(event.data));
  // A refusal (too many clients) closes it for good; a broken connection mends by itself.
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(() => !document.hidden && connected && listen(), 3000);
  };
}

function leave() {
  if (events) events.close();
  events = null;
  $("image").removeAttribute("src");
  watched = "";
}

document.addEventListener("visibilitychange", () => {
  // Six connections are all that a browser opens to a server: pages that nobody looks at keep none.
  if (document.hidden) return leave();
  record(null);
  if (connected) reopen();
});

// --------------------------------------------------------------------------------------------------- image

function watch(again) {
  const image = $("image");
  const address = `/stream/${selected}.mjpeg`;
  if (!sources.length || (watched === address && !again)) return;
  clearTimeout(retry);
  if (watched !== address) image.hidden = true;
  watched = address;
  image.src = `${address}?${Date.now()}`;
  freshen();
}

$("image").addEventListener("load", () => {
  $("image").hidden = false;
  freshen();
});
$("image").addEventListener("error", () => {
  if (!watched) return;
  $("image").hidden = true;
  freshen();
  retry = setTimeout(() => connected && !document.hidden && watch(true), 3000);
});

function freshen() {
  const image = $("image");
  const source = sources[selected];
  const shown = !image.hidden;
  $("no-image").hidden = shown;
  if (!source) return;
  const [, word] = STATES[source.state] || ["wait", source.state];
  const age = source.last_frame_age_s;
  const live = connected && source.state === "live";
  image.classList.toggle("old", !connected || (source.state !== "ended" && age !== null && age > OLD_S));
  image.alt = live ? `Live image of ${source.source}` : `Last image of ${source.source}`;
  say($("view-title"), source.source);
  const told = live ? "Live" : `${connected ? word : "Not connected"}, last image ${seconds(age)}`;
  say($("caption"), shown ? told : connected ? word : "Not connected");
  say($("no-image"), connected && age === null ? "No image yet" : "No image");
  say($("answer-title"), live || source.state === "ended" ? "Answer" : "Last answer");
}

function offer() {
  const choice = $("choice");
  choice.querySelectorAll("label").forEach((label) => label.remove());
  choice.hidden = sources.length < 2;
  sources.forEach((source, index) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "camera", value: index });
    const text = document.createElement("span");
    text.textContent = source.source;
    input.checked = index === selected;
    input.addEventListener("change", () => select(index));
    label.append(input, text);
    choice.append(label);
  });
}

function select(index) {
  selected = index;
  watch(false);
  freshen();
  if (newest[index]) answer(newest[index]);
  else forget();
  draw();
}

// ---------------------------------------------------------------------------------------------------- answer

function predicted(prediction) {
  const index = prediction.source_index;
  newest[index] = prediction;
  const sum = (sums[index] = sums[index] || { ms: 0, count: 0 });
  sum.ms += Object.values(prediction.stages_ms).reduce((total, ms) => total + ms, 0);
  sum.count += 1;
  if (index === selected) answer(prediction);
}

function answer(prediction) {
  const held = prediction.answer || prediction.top[0];
  const unsure = Boolean(prediction.answer) && held.class_index < 0;
  say($("answer"), unsure ? "unknown" : held.label);
  $("answer").classList.toggle("unsure", unsure);
  say($("sureness"), unsure ? "No class is sure enough" : `${percent(held.probability)} sure`);
  const bars = $("bars");
  $("bars-title").hidden = false;
  while (bars.children.length > prediction.top.length) bars.lastChild.remove();
  while (bars.children.length < prediction.top.length) bars.append(bar());
  prediction.top.forEach((score, rank) => {
    const row = bars.children[rank];
    say(row.querySelector(".label"), score.label);
    say(row.querySelector(".share"), percent(score.probability));
    row.querySelector(".fill").style.width = `${100 * score.probability}%`;
  });
}

function forget() {
  say($("answer"), "No answer yet");
  $("answer").classList.add("unsure");
  say($("sureness"), "");
  $("bars-title").hidden = true;
  $("bars").replaceChildren();
}

function bar() {
  const row = document.createElement("li");
  const name = Object.assign(document.createElement("div"), { className: "name" });
  const track = Object.assign(document.createElement("div"), { className: "track" });
  name.append(
    Object.assign(document.createElement("span"), { className: "label" }),
    Object.assign(document.createElement("span"), { className: "share" }),
  );
  track.append(Object.assign(document.createElement("div"), { className: "fill" }));
  track.setAttribute("aria-hidden", "true");
  row.append(name, track);
  return row;
}

// ---------------------------------------------------------------------------------------------------- status

function show(status) {
  const before = sources.map((source) => source.source).join("\n");
  sources = status.sources;
  if (sources.map((source) => source.source).join("\n") !== before) {
    selected = Math.min(selected, Math.max(0, sources.length - 1));
    offer();
    watch(true);
  }
  say($("artifact"), `${status.artifact} · ${status.precision} · ${status.backend}`);
  say($("footer"), `Version ${status.version} · running for ${duration(status.uptime_s)} · ${count(status.predictions)} predictions`);
  rows($("cameras"), sources, (source) => [
    source.source,
    null,
    source.frames_per_s.toFixed(1),
    source.state === "ended" ? "–" : seconds(source.last_frame_age_s),
    count(source.dropped),
    count(source.reconnects),
  ]);
  sources.forEach((source, index) => health($("cameras").tBodies[0].rows[index].cells[1].firstChild, source));
  $("outputs-card").hidden = !status.sinks.length;
  rows($("outputs"), status.sinks, (sink) => [sink.name, count(sink.written), count(sink.lost), sink.error || "none"]);
  record(status);
  freshen();
}

function rows(table, records, texts) {
  const body = table.tBodies[0];
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  while (body.rows.length > records.length) body.lastElementChild.remove();
  while (body.rows.length < records.length) {
    const row = body.insertRow();
    names.forEach((name, column) => {
      const cell = document.createElement(column ? "td" : "th");
      if (column) cell.dataset.name = name;
      else cell.scope = "row";
      cell.append(document.createElement("span"));
      row.append(cell);
    });
  }
  records.forEach((item, index) =>
    texts(item).forEach((text, column) => text === null || say(body.rows[index].cells[column].firstChild, text)),
  );
}

function health(cell, source) {
  const [level, word] = STATES[source.state] || ["wait", source.state];
  const notes = [source.frozen && "the image stands still", source.black && "the image is black", source.state !== "live" && source.error];
  if (!cell.firstChild) cell.append(document.createElement("span"), document.createElement("span"));
  const [state, note] = cell.children;
  state.className = "state";
  state.dataset.level = level === "good" && (source.frozen || source.black) ? "wait" : level;
  note.className = "note";
  say(state, word);
  say(note, notes.filter(Boolean).join("; "));
}

function count(number) {
  return number.toLocaleString("en");
}

function duration(value) {
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} days`;
}

// ---------------------------------------------------------------------------------------------------- charts

function record(status) {
  sources.forEach((source, index) => {
    const points = (history[index] = history[index] || []);
    const sum = sums[index];
    points.push({
      ms: status && sum && sum.count ? sum.ms / sum.count : null,
      rate: status ? source.frames_per_s : null,
    });
    if (points.length > POINTS) points.shift();
  });
  sums = [];
  draw();
}

function draw() {
  const points = history[selected] || [];
  chart($("latency"), points.map((point) => point.ms), " ms");
  chart($("rate"), points.map((point) => point.rate), "");
}

function chart(element, values, unit) {
  const known = values.filter((value) => value !== null);
  const last = values.length ? values[values.length - 1] : null;
  say(element.querySelector(".now"), last === null ? "–" : last.toFixed(1) + unit);
  const top = nice(Math.max(0, ...known));
  say(element.querySelector(".top"), known.length ? `0 to ${top}${unit}` : "");
  const shown = [60, 120, POINTS].find((span) => span >= values.length) || POINTS;
  say(element.querySelector(".from"), `${shown / 60} min ago`);
  const x = (index) => 300 - (values.length - 1 - index) * (300 / (shown - 1));
  let line = "";
  let area = "";
  let begun = null;
  values.forEach((value, index) => {
    if (value === null) {
      if (begun !== null) area += `L${x(index - 1).toFixed(1)} 72Z`;
      begun = null;
      return;
    }
    const point = `${x(index).toFixed(1)} ${(70 - (68 * value) / top).toFixed(1)}`;
    line += (begun === null ? "M" : "L") + point;
    area += begun === null ? `M${x(index).toFixed(1)} 72L${point}` : `L${point}`;
    if (begun === null) begun = index;
  });
  if (begun !== null) area += "L300 72Z";
  element.querySelector(".line").setAttribute("d", line);
  element.querySelector(".area").setAttribute("d", area);
}

function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 1.05) || 20 * power;
}

poll();
