// Evaluated in a page by tests/src/browser. Says, as a list of sentences, what a person could not read or see there.
async ({ width, isDark }) => {
  const SMALLEST = 11; // CSS px
  const CONTRAST = 4.5, CONTRAST_LARGE = 3; // WCAG 2.2, 1.4.3
  const LARGE = 24, LARGE_BOLD = 18.66; // CSS px
  const DARK = 0.05, LIGHT = 0.8; // luminance of a page

  const faults = new Set();

  // Whatever notation a computed colour has, the browser itself paints it.
  const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (css) => {
    if (!known.has(css)) {
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = css;
      pixel.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
      known.set(css, { colour: [r, g, b], alpha: a / 255 });
    }
    return known.get(css);
  };
  const mix = (below, above, alpha) => below.map((value, i) => value + (above[i] - value) * alpha);
  const luminance = (colour) => {
    const linear = colour.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };

  // What is below everything.
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.backgroundColor = "Canvas";
  const canvas = rgba(getComputedStyle(probe).backgroundColor).colour;
  probe.remove();

  // The colour at a place in an element, with all that is around it: of its ground, or of `ink` on it. What has an opacity is
  // painted together with all that is in it, and then laid over what is below.
  const painted = (element, ink) => {
    const around = [];
    for (let one = element; one; one = one.parentElement) around.unshift(getComputedStyle(one));
    const paint = (depth, below) => {
      const style = around[depth];
      if (!style) return ink ? mix(below, ink.colour, ink.alpha) : below;
      const ground = rgba(style.backgroundColor);
      return mix(below, paint(depth + 1, mix(below, ground.colour, ground.alpha)), Number(style.opacity));
    };
    return paint(0, canvas);
  };

  // For the ears: there, and one pixel in size.
  const isForEars = (element) => {
    for (let one = element; one; one = one.parentElement) if (one.offsetWidth <= 1 && getComputedStyle(one).clipPath !== "none") return true;
    return false;
  };
  const isSeen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !isForEars(element);

  const readable = (text, element, style) => {
    const named = `"${text.trim().slice(0, 40)}"`;
    const picture = element.ownerSVGElement;
    const size = parseFloat(style.fontSize) * (picture ? element.getScreenCTM().a : 1);
    if (size < SMALLEST - 0.05) faults.add(`${named} is ${size.toFixed(1)} px high`);
    const ink = rgba(picture ? style.fill : style.color);
    const found = contrast(painted(element, ink), painted(element));
    const isLarge = size >= LARGE || (size >= LARGE_BOLD && Number(style.fontWeight) >= 700);
    if (found < (isLarge ? CONTRAST_LARGE : CONTRAST)) faults.add(`${named} has a contrast of ${found.toFixed(2)}`);
  };

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const place = document.createRange();
    place.selectNode(text);
    const isThere = text.data.trim() && place.getClientRects().length > 0;
    if (isThere && isSeen(text.parentElement)) readable(text.data, text.parentElement, getComputedStyle(text.parentElement));
  }
  for (const element of document.body.querySelectorAll("*")) {
    if (element.value && isSeen(element)) readable(String(element.value), element, getComputedStyle(element));
    for (const part of ["::before", "::after"]) {
      const style = getComputedStyle(element, part);
      if (!/^"(.+)"$/.test(style.content) || style.display === "none" || !isSeen(element)) continue;
      readable(style.content, element, style);
      if (!element.textContent.trim()) faults.add(`${style.content} stands beside nothing`);
    }
  }

  const ground = luminance(painted(document.body));
  if (isDark ? ground > DARK : ground < LIGHT) faults.add(`the page is not ${isDark ? "dark" : "light"}: its luminance is ${ground.toFixed(2)}`);

  if (innerWidth !== width) faults.add(`it is laid out for ${innerWidth} px and not for ${width}`);
  const needed = document.scrollingElement.scrollWidth;
  if (needed > width) {
    const wide = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > width + 0.5);
    const named = wide.slice(0, 5).map((one) => `${one.localName}.${one.getAttribute("class") ?? ""}`);
    faults.add(`it has to be scrolled sideways: ${needed} px of ${width} (${named.join(", ")})`);
  }

  const isShown = async (source) => {
    const image = new Image();
    image.src = source;
    return image.decode().then(() => image.naturalWidth > 0, () => false);
  };
  for (const image of document.querySelectorAll("img, image")) {
    const source = image.currentSrc ?? image.href.baseVal;
    if (!(await isShown(source))) faults.add(`a picture is not shown: ${source.slice(0, 80)}`);
  }
  for (const use of document.querySelectorAll("use")) {
    if (!document.querySelector(use.href.baseVal)) faults.add(`a picture is not there: ${use.href.baseVal}`);
  }
  return [...faults];
}
