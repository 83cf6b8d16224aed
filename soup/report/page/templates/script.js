"use strict";
(() => {
  const data = document.getElementById("question-data");
  if (!data) return;
  const questions = JSON.parse(data.textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("question-list");
  const status = document.getElementById("question-status");
  const buttons = { before: document.getElementById("page-before"), after: document.getElementById("page-after") };
  const PARTS = { selection: "questions that chose", report: "questions that only report", all: "all questions" };
  const SIZE = 12;
  let page = 0;

  const make = (name, text, parent, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    if (parent) parent.append(element);
    return element;
  };

  for (const key of ["part", "benchmark", "kind", "category"]) {
    const values = [...new Set(questions.map((question) => question[key]).filter(Boolean))].sort();
    const select = form.elements[key];
    for (const value of values) make("option", key === "part" ? PARTS[value] : value, select).value = value;
    select.closest("label").hidden = values.length < 2;
  }

  const matching = () => questions.filter((question) => {
    const text = form.elements.text.value.trim().toLowerCase();
    const kept = ["part", "benchmark", "kind", "category"].every((key) => !form.elements[key].value || question[key] === form.elements[key].value);
    return kept && (!text || [question.text, question.index, ...question.answers].join("\n").toLowerCase().includes(text));
  });

  const answer = (item, who, text, points) => {
    const line = make("p", undefined, item);
    make("strong", `${who}: `, line);
    line.append(text === null || text === undefined ? "(answer not kept)" : text);
    make("span", ` (${Math.round(100 * points)} %)`, line, "soft");
  };

  const draw = () => {
    const found = matching();
    const pages = Math.max(1, Math.ceil(found.length / SIZE));
    page = Math.min(page, pages - 1);
    list.replaceChildren(...found.slice(page * SIZE, (page + 1) * SIZE).map((question) => {
      const item = make("li", undefined, null, question.kind);
      make("p", `${question.kind} · ${question.benchmark} · ${question.index}${question.category ? ` · ${question.category}` : ""} · ${PARTS[question.part]}`, item, "soft");
      question.images.forEach((uri, number) => {
        const image = make("img", undefined, item);
        image.alt = `image ${number + 1} of question ${question.index}`;
        image.src = uri;
      });
      if (question.text) make("p", question.text, item);
      if (question.reference) make("p", `right: ${question.reference}`, item, "soft");
      answer(item, "soup", question.answers[0], question.points[0]);
      answer(item, "best single", question.answers[1], question.points[1]);
      return item;
    }));
    status.textContent = `${found.length} of ${questions.length} questions, page ${page + 1} of ${pages}`;
    buttons.before.disabled = page === 0;
    buttons.after.disabled = page >= pages - 1;
  };

  form.addEventListener("input", () => { page = 0; draw(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  buttons.before.addEventListener("click", () => { page -= 1; draw(); });
  buttons.after.addEventListener("click", () => { page += 1; draw(); });
  draw();
})();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((element) => { element.open = true; }));
