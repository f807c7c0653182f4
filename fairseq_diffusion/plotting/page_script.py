"""The JavaScript of the page of ``fairseq-diffusion plot --history``: shows one sentence at a time, step by step.

It reads the tables of the page, so no data are on it twice.
"""

SCRIPT = """
(() => {
  const $ = id => document.getElementById(id);
  const articles = [...document.querySelectorAll("article")];
  if (!articles.length) return;
  let article = articles[0], step = Infinity, timer = 0;

  const tables = () => [...article.querySelectorAll("table")];
  const last = () => Math.max(...tables().map(table => table.tBodies[0].rows.length)) - 1;

  // A strip has a place for each position, and in it every token of that position, so that the layout does not move.
  function strip(table) {
    const rows = [...table.tBodies[0].rows];
    const line = table.closest(".candidate").querySelector(".strip");
    const width = Math.max(...rows.map(row => row.cells.length)) - 1;
    const places = Array.from({length: width}, (_, position) => {
      const place = line.appendChild(document.createElement("span")), tokens = new Map();
      for (const row of rows) {
        const cell = row.cells[position + 1];
        if (!cell || tokens.has(cell.innerHTML)) continue;
        const token = place.appendChild(document.createElement("span"));
        cell.childNodes.forEach(node => token.appendChild(node.cloneNode(true)));
        tokens.set(cell.innerHTML, token);
      }
      return {place, tokens};
    });
    table.show = now => {
      now = Math.min(now, rows.length - 1);
      rows.forEach((row, i) => row.className = i === now ? "now" : i > now ? "later" : "");
      places.forEach(({place, tokens}, position) => {
        const cell = rows[now].cells[position + 1];
        place.className = "cell " + (cell ? cell.className : "gone");
        place.title = cell ? cell.title : "";
        tokens.forEach((token, text) => token.className = cell && cell.innerHTML === text ? "on" : "");
      });
    };
  }

  function show() {
    step = Math.min(Math.max(step, 0), last());
    for (const other of articles) other.hidden = other !== article;
    for (const table of tables()) {
      if (!table.show) strip(table);
      table.show(step);
    }
    $("slider").max = last();
    $("slider").value = step;
    $("where").textContent = `step ${step} of ${last()}`;
    $("pick").value = article.id;
    const wanted = `#s=${encodeURIComponent(article.id.slice(2))}&step=${step}`;
    if (location.hash !== wanted) location.replace(wanted);
  }

  function go(to) { step = to; show(); }
  function turn(by) { pick(articles[(articles.indexOf(article) + by + articles.length) % articles.length]); }
  function pick(other) { article = other; if (timer) step = 0; show(); }
  function stop() { clearInterval(timer); timer = 0; $("play").textContent = "Play"; }
  function play() {
    if (timer) return stop();
    if (step >= last()) go(0);
    $("play").textContent = "Pause";
    const pause = Math.max(150, Math.min(600, 8000 / last()));
    timer = setInterval(() => { go(step + 1); if (step >= last()) stop(); }, pause);
  }
  function read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    article = articles.find(one => one.id === "s-" + asked.get("s")) || article;
    step = asked.has("step") ? parseInt(asked.get("step")) || 0 : step;
    show();
  }

  document.documentElement.classList.add("live");
  for (const {id, dataset} of articles) $("pick").add(new Option(dataset.label, id));
  $("back").onclick = () => { stop(); go(step - 1); };
  $("on").onclick = () => { stop(); go(step + 1); };
  $("play").onclick = play;
  $("slider").oninput = event => { stop(); go(+event.target.value); };
  $("pick").onchange = event => pick($(event.target.value));
  $("earlier").onclick = () => turn(-1);
  $("later").onclick = () => turn(1);
  addEventListener("hashchange", read);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => one.open = true));
  const keys = {
    ArrowLeft: $("back").onclick, ArrowRight: $("on").onclick, " ": play, n: () => turn(1), p: () => turn(-1),
    Home: () => { stop(); go(0); }, End: () => { stop(); go(Infinity); },
  };
  addEventListener("keydown", event => {
    const own = event.target.closest("select,summary" + (event.key === " " ? ",button" : ""));
    if (own || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  read();
})();
"""
