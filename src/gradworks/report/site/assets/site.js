/* Theme, copy buttons, and the catalogue's search, filters and order. No dependency. */
(function () {
  "use strict";
  var root = document.documentElement;

  // Theme: the system decides until the reader does.
  var button = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }
  function themeChanged() {
    button.setAttribute("aria-pressed", String(isDark()));
    document.dispatchEvent(new CustomEvent("themechange"));
  }
  button.addEventListener("click", function () {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("gradworks-theme", root.dataset.theme); } catch (e) { /* not kept */ }
    themeChanged();
  });
  dark.addEventListener("change", themeChanged);
  button.setAttribute("aria-pressed", String(isDark()));

  // Copy buttons: the clipboard where there is one, else a selection to copy by hand.
  function copyText(pre) {
    var text = pre.textContent;
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    var range = document.createRange();
    range.selectNodeContents(pre);
    var selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy") ? Promise.resolve() : Promise.reject(new Error("refused"));
  }
  document.querySelectorAll("button.copy").forEach(function (one) {
    var label = one.getAttribute("aria-label");
    function say(text) {
      one.textContent = text;
      one.setAttribute("aria-label", text + ". " + label);
      setTimeout(function () {
        one.textContent = "Copy";
        one.setAttribute("aria-label", label);
      }, 1600);
    }
    one.addEventListener("click", function () {
      copyText(one.parentNode.querySelector("pre")).then(
        function () { say("Copied"); },
        function () { say("Press Ctrl+C"); }
      );
    });
  });

  // The catalogue.
  var form = document.getElementById("filters");
  if (!form) return;
  var list = document.getElementById("cards");
  var cards = Array.prototype.slice.call(list.children);
  var count = document.getElementById("count");
  var empty = document.getElementById("empty");
  var fields = {
    q: document.getElementById("q"),
    area: document.getElementById("area"),
    verdict: document.getElementById("verdict"),
    sort: document.getElementById("sort")
  };
  form.hidden = false;

  function words(text) {
    return text.toLowerCase().replace(/[-_]/g, " ").split(/\s+/).filter(Boolean);
  }
  function compare(key, sign) {
    return function (a, b) {
      var x = a.dataset[key], y = b.dataset[key];
      return x === y ? cards.indexOf(a) - cards.indexOf(b) : (x < y ? -sign : sign);
    };
  }
  var orders = {
    newest: compare("date", -1),
    oldest: compare("date", 1),
    verdict: compare("finished", -1)
  };

  function apply() {
    var wanted = words(fields.q.value);
    var shown = 0;
    cards.slice().sort(orders[fields.sort.value]).forEach(function (card) {
      var d = card.dataset;
      var fits = (!fields.area.value || d.area === fields.area.value) &&
        (!fields.verdict.value || d.verdict === fields.verdict.value) &&
        wanted.every(function (word) { return d.text.indexOf(word) >= 0; });
      card.hidden = !fits;
      if (fits) shown += 1;
      list.appendChild(card);
    });
    empty.hidden = shown > 0;
    count.textContent = shown === cards.length
      ? shown + " papers"
      : shown + " of " + cards.length + " papers";
  }

  // The state stands in the address, so that a view can be linked and found again.
  function write() {
    var parts = [];
    Object.keys(fields).forEach(function (name) {
      var value = fields[name].value;
      if (value && !(name === "sort" && value === "newest")) {
        parts.push(name + "=" + encodeURIComponent(value));
      }
    });
    try {
      history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname);
    } catch (e) { /* not allowed here: the view works, the address stays */ }
  }
  function read() {
    if (location.hash.indexOf("=") < 0) return false;
    var found = {};
    location.hash.slice(1).split("&").forEach(function (part) {
      var at = part.indexOf("=");
      try { found[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch (e) { /* skip */ }
    });
    Object.keys(fields).forEach(function (name) {
      var field = fields[name];
      field.value = found[name] || (name === "sort" ? "newest" : "");
      if (field.selectedIndex === -1) field.selectedIndex = 0;
    });
    return true;
  }
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("input", function () { write(); apply(); });
  form.addEventListener("reset", function (event) { event.preventDefault(); });
  document.getElementById("clear").addEventListener("click", function () {
    Object.keys(fields).forEach(function (name) {
      fields[name].value = name === "sort" ? "newest" : "";
    });
    write();
    apply();
    fields.q.focus();
  });
  document.getElementById("clear-too").addEventListener("click", function () {
    document.getElementById("clear").click();
  });
  function arrive() {
    if (!read()) return;
    apply();
    document.getElementById("catalogue").scrollIntoView();
  }
  window.addEventListener("hashchange", arrive);
  apply();
  arrive();
})();
