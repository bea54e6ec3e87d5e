// The PROMPT tab: ask, read the answers as they come, vote, prefer.
import { plain } from "./plain.js";
import { post, toast, writeToken } from "./shell.js";

const form = document.getElementById("ask");
const field = (id) => document.getElementById(id);
const KEYS = [
  ["1", "2", "3"],
  ["4", "5", "6"],
];
let asking = null;

/** One answer: its element, its raw text, who gave it. */
class Answer {
  constructor(round, slot, wanted) {
    this.round = round;
    this.slot = slot;
    this.version = wanted;
    this.raw = "";
    this.vote = 0;
    this.sent = Promise.resolve(); // votes go out one after another
    this.element = field("answer").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.element.querySelector(`.${name}`);
    this.part("who").textContent = wanted ?? "current";
    [this.part("up"), this.part("down"), this.part("prefer")].forEach((button, place) => {
      button.querySelector("kbd").textContent = KEYS[slot][place];
    });
    this.part("up").addEventListener("click", () => this.say(1));
    this.part("down").addEventListener("click", () => this.say(-1));
    this.part("prefer").addEventListener("click", () => this.round.prefer(this));
  }

  state(words, kind) {
    const badge = this.part("state");
    badge.textContent = words;
    badge.className = `badge state ${kind}`;
  }

  take(event) {
    if (event.version) {
      this.version = event.version;
      this.part("who").textContent = event.version;
    }
    const acts = {
      loading: () => this.state("loading the model", "busy"),
      answers: () => this.state("answering", "busy"),
      piece: () => {
        this.raw += event.text;
        this.part("text").textContent = plain(this.raw);
      },
      done: () => {
        this.raw = event.text;
        this.part("text").textContent = plain(event.text) || "(an empty answer)";
        this.state(event.finish_reason === "length" ? "cut" : "done", event.finish_reason === "length" ? "warn" : "good");
        this.part("facts").textContent = `${event.tokens} token${event.tokens === 1 ? "" : "s"} · ${event.seconds.toFixed(1)} s`;
        this.done = true;
        this.part("votes").hidden = !event.text.trim();
      },
      fault: () => this.fail([event.message, event.next].filter(Boolean).join("\n")),
    };
    acts[event.kind]?.();
  }

  fail(text) {
    this.element.classList.add("failed");
    this.state("failed", "bad");
    this.part("text").textContent = plain(text);
  }

  async say(score) {
    const before = this.vote;
    const wanted = before === score ? 0 : score;
    this.vote = wanted; // at once: a second press may come before the first one's answer
    const body = { prompt: this.round.question, answer: this.raw, score: wanted, version: this.version };
    this.sent = this.sent.then(() => post("/api/answers/vote", body));
    try {
      await this.sent;
      this.part("up").setAttribute("aria-pressed", String(wanted === 1));
      this.part("down").setAttribute("aria-pressed", String(wanted === -1));
      field("said").textContent = wanted ? `voted ${wanted > 0 ? "good" : "bad"}` : "vote taken back";
    } catch (fault) {
      this.vote = before;
      this.sent = Promise.resolve();
      toast(fault.message);
    }
  }
}

/** One question with its answers. */
class Round {
  constructor(question, versions) {
    this.question = question;
    this.element = field("round").content.firstElementChild.cloneNode(true);
    this.element.querySelector(".asked").textContent = plain(question);
    this.answers = versions.map((version, slot) => new Answer(this, slot, version));
    this.element.querySelector(".answers").append(...this.answers.map((answer) => answer.element));
    field("rounds").prepend(this.element);
  }

  take(event) {
    if (event.kind === "starting") this.answers.forEach((answer) => answer.state("starting", "busy"));
    else if (event.kind === "fault" && event.slot === undefined) this.answers.forEach((answer) => answer.done || answer.fail(event.message));
    else if (event.slot !== undefined) this.answers[event.slot].take(event);
    if (event.kind === "end") this.end();
  }

  end() {
    const [first, second] = this.answers;
    if (second && first.done && second.done && first.raw !== second.raw) {
      this.answers.forEach((answer) => (answer.part("prefer").hidden = false));
    }
    const told = this.answers.filter((answer) => answer.done).map((answer) => `${answer.version} answers: ${answer.raw}`);
    field("said").textContent = plain(told.join(". "));
  }

  async prefer(chosen) {
    const rejected = this.answers.find((answer) => answer !== chosen);
    const lock = (locked) => this.answers.forEach((answer) => (answer.part("prefer").disabled = locked));
    lock(true); // at once: a second press may come before the first one's answer
    try {
      await post("/api/answers/prefer", { prompt: this.question, chosen: chosen.raw, rejected: rejected.raw, version: chosen.version });
      for (const answer of this.answers) {
        answer.element.classList.add(answer === chosen ? "chosen" : "rejected");
        answer.part("prefer").setAttribute("aria-pressed", String(answer === chosen));
      }
      toast("kept as a pair; it waits for review in RL DATA", "good");
    } catch (fault) {
      lock(false);
      toast(fault.message);
    }
  }
}

async function ask() {
  const question = field("question").value.trim();
  if (!question || asking) return;
  if (!form.reportValidity()) return;
  const second = field("second").value;
  const versions = [field("first").value || null, ...(second === "-" ? [] : [second])];
  const round = new Round(question, versions);
  asking = new AbortController();
  field("send").disabled = true;
  field("cancel").hidden = false;
  try {
    const answer = await fetch("/api/ask", {
      method: "POST",
      signal: asking.signal,
      headers: { "Content-Type": "application/json", "X-DLM-Token": writeToken() },
      body: JSON.stringify({
        question,
        versions,
        temperature: Number(field("temperature").value),
        max_new_tokens: Number(field("tokens").value),
        seed: Number(field("seed").value),
      }),
    });
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `the server said ${answer.status}`);
    for await (const line of linesOf(answer.body)) round.take(JSON.parse(line));
  } catch (fault) {
    const text = fault.name === "AbortError" ? "stopped" : fault.message;
    round.answers.filter((answer) => !answer.done).forEach((answer) => (answer.raw && text === "stopped" ? answer.state("stopped", "warn") : answer.fail(text)));
  } finally {
    asking = null;
    field("send").disabled = false;
    field("cancel").hidden = true;
  }
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
field("cancel")?.addEventListener("click", () => asking?.abort());
document.querySelectorAll(".probe-of").forEach((button) =>
  button.addEventListener("click", () => {
    field("question").value = button.dataset.question;
    field("question").focus();
  }),
);
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") ask();
  else if (event.key === "Escape") asking?.abort();
  else if (!event.target.matches("input, textarea, select") && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const slot = KEYS.findIndex((keys) => keys.includes(event.key));
    if (slot < 0) return;
    const answer = document.querySelector(".round")?.querySelectorAll(".answer")[slot];
    const button = answer?.querySelectorAll(".votes button")[KEYS[slot].indexOf(event.key)];
    if (button && !button.hidden && !button.closest("[hidden]")) button.click();
  }
});
