const byId = (id) => document.getElementById(id);

/** Shows a text in a place that is hidden while it has none. */
function show(place, text) {
  place.textContent = text;
  place.hidden = text === "";
}

/** Runs this when a form is submitted, which Ctrl or ⌘ with Enter also does from inside a longer text. */
function onSubmit(form, run) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.tagName === "TEXTAREA") {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

/** An element with this class and text, or these children. */
function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

/** Replaces what a result shows. */
function showResult(place, isGood, ...content) {
  place.dataset.state = isGood ? "good" : "bad";
  place.replaceChildren(...content);
  place.hidden = false;
}

function milliseconds(duration) {
  return `${duration < 10 ? duration.toFixed(1) : Math.round(duration)} ms`;
}

function bytes(count) {
  if (count < 1024) return `${count} B`;
  return count < 1024 * 1024 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

/** What stays until the tab closes, if its user wants that. A browser may forbid it. */
const kept = {
  name: "bugle-console",
  read() {
    try {
      return JSON.parse(sessionStorage.getItem(this.name)) ?? {};
    } catch {
      return {};
    }
  },
  write(values) {
    try {
      if (values) sessionStorage.setItem(this.name, JSON.stringify(values));
      else sessionStorage.removeItem(this.name);
    } catch {
      // Then nothing is kept, as without the wish.
    }
  },
};
