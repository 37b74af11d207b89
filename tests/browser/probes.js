// What is asked of a page that a browser has laid out. An expression: an object of questions.
// No question waits, since a page without scripts runs no timers and keeps no promises.
({
  // -- helpers --

  // A place in the page that a person finds again.
  what(element) {
    const name = (e) =>
      e.localName + (e.id ? `#${e.id}` : [...e.classList].map((c) => `.${c}`).join(""));
    const text = element.textContent.trim().replace(/\s+/g, " ").slice(0, 30);
    const parent = element.parentElement;
    return `${parent ? `${name(parent)} > ` : ""}${name(element)} "${text}"`;
  },

  // Drawn, and not one of the boxes of a pixel that only a screen reader meets.
  isSeen(element) {
    const box = element.getBoundingClientRect();
    return (
      element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
      box.width > 1 &&
      box.height > 1 &&
      box.right > 0 &&
      box.left < innerWidth &&
      box.bottom + scrollY > 0
    );
  },

  // -- making ready --

  // The page's own policy forbids strange sheets; one that is made here it does not see.
  addStyle(css) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  },

  openAll() {
    for (const each of document.querySelectorAll("details")) each.open = true;
  },

  // -- questions --

  // What the page says of itself.
  says() {
    const root = document.documentElement;
    return {
      title: document.title,
      language: root.lang,
      direction: root.dir,
      icon: document.querySelector("link[rel~=icon]")?.getAttribute("href") ?? "",
      words: document.body.innerText,
      main: document.querySelector("main").innerText,
    };
  },

  // The boxes as they stand, and as they stand when the same text goes the other way.
  bothWays() {
    const root = document.documentElement;
    const found = [this.boxes()];
    const direction = root.dir;
    root.dir = direction === "rtl" ? "ltr" : "rtl";
    found.push(this.boxes());
    root.dir = direction;
    return found;
  },

  // Both margins of every box, save those that flow with the words of a line.
  boxes() {
    const width = document.documentElement.clientWidth;
    const found = [];
    for (const each of document.querySelectorAll(
      ":is(header, nav, main, footer), :is(header, nav, main, footer) *",
    )) {
      const inSvg = each.ownerSVGElement !== undefined && each.localName !== "svg";
      const box = each.getBoundingClientRect();
      if (inSvg || box.width === 0 || getComputedStyle(each).display === "inline") continue;
      found.push({ what: this.what(each), left: box.left, right: width - box.right });
    }
    return found;
  },

  // How far the page can be pushed sideways, what sticks out, and what cuts its own text.
  overflow() {
    const root = document.documentElement;
    const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
    const out = [];
    for (const each of document.body.querySelectorAll("*")) {
      if (!this.isSeen(each) || each.ownerSVGElement) continue;
      const box = each.getBoundingClientRect();
      let region = each.parentElement;
      while (region && !scrolls(region)) region = region.parentElement;
      const past = box.right > root.clientWidth + 1 || box.left < -1;
      const cut =
        getComputedStyle(each).overflowX === "hidden" && each.scrollWidth > each.clientWidth + 1;
      if (!region && (past || cut)) out.push(this.what(each));
    }
    return { pixels: root.scrollWidth - root.clientWidth, out };
  },

  // What can be pressed. A link within a sentence is as high as its line, and is not alone.
  targets() {
    const found = [];
    const words = (e) => e.textContent.replace(/\s+/g, "");
    for (const each of document.querySelectorAll(
      "a[href], button, input:not([type=hidden]), select, textarea, summary",
    )) {
      if (!this.isSeen(each)) continue;
      const box = (each.closest("label") ?? each).getBoundingClientRect();
      let around = each;
      while (getComputedStyle(around).display === "inline") around = around.parentElement;
      const alone = words(around) === words(each);
      const line = alone ? 0 : parseFloat(getComputedStyle(around).lineHeight) || 0;
      found.push({
        what: this.what(each),
        width: box.width,
        height: Math.max(box.height, line),
        alone,
      });
    }
    return found;
  },

  // How everything that can have the focus looks without it.
  remember() {
    document.activeElement?.blur();
    window.unfocused = new Map(
      [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
        .map((each) => [each, this.looks(each)]),
    );
  },

  looks(element) {
    const style = getComputedStyle(element);
    return {
      outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
      painted: /^(transparent|rgba\(.*, 0\))$/.test(style.outlineColor) ? 0 : 1,
      shadow: style.boxShadow,
    };
  },

  // What has the focus, and whether a person can see that.
  focused() {
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const box = element.getBoundingClientRect();
    const now = this.looks(element);
    const before = window.unfocused?.get(element) ?? { outline: 0, shadow: "none" };
    const outlined = now.outline >= 2 && now.outline > before.outline;
    return {
      what: this.what(element),
      tag: element.localName,
      target: element.getAttribute("href") ?? "",
      // Where readers choose the colours, an outline is painted whatever its own, and a shadow never.
      outlined,
      visible: (outlined && now.painted === 1) || now.shadow !== before.shadow,
      onScreen:
        box.width > 1 && box.top >= -1 && box.bottom <= innerHeight + 1 && box.left >= -1 &&
        box.right <= innerWidth + 1,
    };
  },

  // For each text, how far down the screen one must look to read it whole; null if nowhere.
  readTo(texts) {
    const plain = (text) => text.replace(/[\u00a0\u202f\s]+/g, " ");
    const all = [...document.body.querySelectorAll("*")].filter(
      (e) => this.isSeen(e) && !e.ownerSVGElement,
    );
    return texts.map((text) => {
      const holds = (e) => plain(e.textContent).includes(plain(text));
      const ends = all
        .filter((e) => holds(e) && ![...e.children].some(holds))
        .map((e) => e.getBoundingClientRect().bottom);
      return ends.length ? Math.min(...ends) : null;
    });
  },
})
