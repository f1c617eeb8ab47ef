"use strict";
// Shows /api/status, /api/predictions and /stream/N.mjpeg. The status, requested once a second, decides whether the server is
// connected: pulling a network cable closes no stream.

const POINTS = 300;
const POLL_MS = 1000;
const TIMEOUT_MS = 4000;
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
let shownAddress = "";
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

function setText(element, text) {
  // Unchanged text is not set again: screen readers would read it again.
  if (element.textContent !== text) element.textContent = text;
}

// ------------------------------------------------------------------------------------------------ connection

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/api/status", { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.statusText);
      const status = await answer.json();
      if (connected !== true) openStreams();
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
  setText(state, works ? "Connected" : "Not connected");
  state.dataset.level = works ? "good" : "bad";
  if (!works) {
    // Browsers show a broken stream as an empty box.
    $("image").removeAttribute("src");
    $("image").hidden = true;
    shownAddress = "";
  }
  refreshCaption();
}

function openStreams() {
  listen();
  showStream(true);
}

function listen() {
  if (events) events.close();
  events = new EventSource("/api/predictions?max_per_s=10");
  events.onmessage = (event) => predicted(JSON.parse(event.data));
  // A refusal (too many clients) closes it for good; after a broken connection the browser reconnects by itself.
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(() => !document.hidden && connected && listen(), 3000);
  };
}

function disconnect() {
  if (events) events.close();
  events = null;
  $("image").removeAttribute("src");
  shownAddress = "";
}

document.addEventListener("visibilitychange", () => {
  // A browser opens at most six connections to a server: hidden pages keep none.
  if (document.hidden) return disconnect();
  record(null);
  if (connected) openStreams();
});

// --------------------------------------------------------------------------------------------------- image

function showStream(again) {
  const image = $("image");
  const address = `/stream/${selected}.mjpeg`;
  if (!sources.length || (shownAddress === address && !again)) return;
  clearTimeout(retry);
  if (shownAddress !== address) image.hidden = true;
  shownAddress = address;
  image.src = `${address}?${Date.now()}`;
  refreshCaption();
}

$("image").addEventListener("load", () => {
  $("image").hidden = false;
  refreshCaption();
});
$("image").addEventListener("error", () => {
  if (!shownAddress) return;
  $("image").hidden = true;
  refreshCaption();
  retry = setTimeout(() => connected && !document.hidden && showStream(true), 3000);
});

function refreshCaption() {
  const image = $("image");
  const source = sources[selected];
  const shown = !image.hidden;
  $("no-image").hidden = shown;
  if (!source) return;
  const [, stateText] = STATES[source.state] || ["wait", source.state];
  const age = source.last_frame_age_s;
  const live = connected && source.state === "live";
  image.classList.toggle("old", !connected || (source.state !== "ended" && age !== null && age > OLD_S));
  image.alt = live ? `Live frames of ${source.source}` : `Last frame of ${source.source}`;
  setText($("view-title"), source.source);
  const caption = live ? "Live" : `${connected ? stateText : "Not connected"}, last frame ${seconds(age)}`;
  setText($("caption"), shown ? caption : connected ? stateText : "Not connected");
  setText($("no-image"), connected && age === null ? "No frame yet" : "No frame");
  setText($("answer-title"), live || source.state === "ended" ? "Answer" : "Last answer");
}

function showChoice() {
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
  showStream(false);
  refreshCaption();
  if (newest[index]) answer(newest[index]);
  else clearAnswer();
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
  const best = prediction.answer || prediction.top[0];
  const unsure = Boolean(prediction.answer) && best.class_index < 0;
  setText($("answer"), unsure ? "unknown" : best.label);
  $("answer").classList.toggle("unsure", unsure);
  setText($("sureness"), unsure ? "No class is probable enough" : `${percent(best.probability)} probability`);
  const bars = $("bars");
  $("bars-title").hidden = false;
  while (bars.children.length > prediction.top.length) bars.lastChild.remove();
  while (bars.children.length < prediction.top.length) bars.append(bar());
  prediction.top.forEach((score, rank) => {
    const row = bars.children[rank];
    setText(row.querySelector(".label"), score.label);
    setText(row.querySelector(".share"), percent(score.probability));
    row.querySelector(".fill").style.width = `${100 * score.probability}%`;
  });
}

function clearAnswer() {
  setText($("answer"), "No answer yet");
  $("answer").classList.add("unsure");
  setText($("sureness"), "");
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
    showChoice();
    showStream(true);
  }
  setText($("artifact"), `${status.artifact} · ${status.precision} · ${status.backend}`);
  setText($("footer"), `Version ${status.version} · running for ${duration(status.uptime_s)} · ${count(status.predictions)} predictions`);
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
  refreshCaption();
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
    texts(item).forEach((text, column) => text === null || setText(body.rows[index].cells[column].firstChild, text)),
  );
}

function health(cell, source) {
  const [level, stateText] = STATES[source.state] || ["wait", source.state];
  const notes = [source.frozen && "the frames are identical", source.black && "the frames are black", source.state !== "live" && source.error];
  if (!cell.firstChild) cell.append(document.createElement("span"), document.createElement("span"));
  const [state, note] = cell.children;
  state.className = "state";
  state.dataset.level = level === "good" && (source.frozen || source.black) ? "wait" : level;
  note.className = "note";
  setText(state, stateText);
  setText(note, notes.filter(Boolean).join("; "));
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
  setText(element.querySelector(".now"), last === null ? "–" : last.toFixed(1) + unit);
  const top = nice(Math.max(0, ...known));
  setText(element.querySelector(".top"), known.length ? `0 to ${top}${unit}` : "");
  const shown = [60, 120, POINTS].find((span) => span >= values.length) || POINTS;
  setText(element.querySelector(".from"), `${shown / 60} min ago`);
  const x = (index) => 300 - (values.length - 1 - index) * (300 / (shown - 1));
  let line = "";
  let area = "";
  let start = null;
  values.forEach((value, index) => {
    if (value === null) {
      if (start !== null) area += `L${x(index - 1).toFixed(1)} 72Z`;
      start = null;
      return;
    }
    const point = `${x(index).toFixed(1)} ${(70 - (68 * value) / top).toFixed(1)}`;
    line += (start === null ? "M" : "L") + point;
    area += start === null ? `M${x(index).toFixed(1)} 72L${point}` : `L${point}`;
    if (start === null) start = index;
  });
  if (start !== null) area += "L300 72Z";
  element.querySelector(".line").setAttribute("d", line);
  element.querySelector(".area").setAttribute("d", area);
}

function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 1.05) || 20 * power;
}

poll();
