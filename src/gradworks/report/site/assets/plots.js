/* Turn each static picture into an interactive plot once it comes near the window. */
(function () {
  "use strict";
  var script = document.currentScript;
  var source = script.dataset.plotly;
  var loading = null;
  var drawn = [];
  var narrow = window.matchMedia("(max-width: 44rem)");

  function load() {
    if (window.Plotly) return Promise.resolve();
    if (!loading) {
      loading = new Promise(function (resolve, reject) {
        var tag = document.createElement("script");
        tag.src = source;
        tag.onload = resolve;
        tag.onerror = reject;
        document.head.appendChild(tag);
      });
    }
    return loading;
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }
  function tone(meta) {
    return colour(meta.tone === "faint" ? "faint" : "tone-" + (meta.tone % 6));
  }
  function clear(hex, share) {
    var n = parseInt(hex.slice(1), 16);
    return "rgba(" + (n >> 16) + "," + ((n >> 8) & 255) + "," + (n & 255) + "," + share + ")";
  }

  // The stored figure has no colours: they are those of the page's theme.
  function themed(figure) {
    var copy = JSON.parse(JSON.stringify(figure));
    copy.data.forEach(function (trace) {
      if (trace.meta.part === "map") return; // heights have their own scale
      var c = tone(trace.meta);
      if (trace.meta.part === "band") { trace.fillcolor = clear(c, 0.18); return; }
      if (trace.line) trace.line.color = c;
      if (trace.type === "bar" || trace.marker) {
        trace.marker = Object.assign(trace.marker || {}, { color: c });
      }
      if (trace.error_y) trace.error_y.color = trace.type === "bar" ? colour("ink") : c;
    });
    var font = getComputedStyle(document.body).fontFamily;
    var axis = {
      gridcolor: colour("rule"), linecolor: colour("faint"), zerolinecolor: colour("rule"),
      tickcolor: colour("faint"), tickfont: { color: colour("faint") }
    };
    copy.layout = Object.assign(copy.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: font, size: 13, color: colour("ink") },
      margin: { l: 16, r: 12, t: narrow.matches ? 44 : 72, b: 12 }, // room for the buttons
      legend: narrow.matches
        ? { orientation: "h", x: 0, y: -0.22, yanchor: "top" }
        : { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      // On a phone a finger on the plot scrolls the page; the buttons zoom.
      dragmode: narrow.matches ? false : "zoom",
      hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("rule"), font: { color: colour("ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("faint"), activecolor: colour("link") }
    });
    ["xaxis", "yaxis"].forEach(function (name) {
      copy.layout[name] = Object.assign({}, axis, copy.layout[name]);
    });
    return copy;
  }

  function draw(item) {
    var figure = themed(item.figure);
    return window.Plotly.react(item.box, figure.data, figure.layout, {
      responsive: true, displaylogo: false, displayModeBar: narrow.matches ? true : "hover",
      showSendToCloud: false, showLink: false, // nothing leaves this machine
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]
    });
  }

  function start(holder) {
    var data = document.getElementById(holder.dataset.figure);
    var box = holder.querySelector(".plotly-box");
    var item = { box: box, figure: JSON.parse(data.textContent) };
    load().then(function () {
      box.hidden = false;
      holder.classList.add("live");
      return draw(item);
    }).then(function () {
      drawn.push(item);
      holder.dataset.ready = "yes";
    }).catch(function () {
      box.hidden = true; // the static picture stays
      holder.classList.remove("live");
    });
  }

  document.addEventListener("themechange", function () { drawn.forEach(draw); });
  narrow.addEventListener("change", function () { drawn.forEach(draw); });

  var holders = document.querySelectorAll(".plot-box");
  if (!("IntersectionObserver" in window)) {
    holders.forEach(start);
    return;
  }
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) return;
      seen.unobserve(entry.target);
      start(entry.target);
    });
  }, { rootMargin: "400px" });
  holders.forEach(function (holder) { seen.observe(holder); });
})();
