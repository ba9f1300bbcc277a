/** What goes wrong on a page: errors of its scripts, and what is written to its console as an error, unless that is meant. */
export function watch(page, { isMeant }) {
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !isMeant(message.text())) faults.push(message.text());
  });
  return faults;
}

/** What sticks out of the page. */
export function overflowing(page) {
  return page.evaluate(() => {
    const found = document.documentElement.scrollWidth > innerWidth ? ['the page'] : [];
    for (const element of document.querySelectorAll('body *')) {
      const { left, right, width } = element.getBoundingClientRect();
      const isSeen = width > 1 && element.checkVisibility();
      if (isSeen && (left < -0.5 || right > innerWidth + 0.5)) found.push(element.outerHTML.slice(0, 100));
    }
    return found;
  });
}

/** Texts whose contrast to what is behind them is below 4.5 (WCAG 2.2 AA). */
export function poorContrasts(page) {
  return page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a), 1];
    const behind = (element) => {
      if (!element) return rgba(getComputedStyle(document.body).backgroundColor);
      const own = rgba(getComputedStyle(element).backgroundColor);
      return own[3] === 1 ? own : over(own, behind(element.parentElement));
    };
    const luminance = (color) => {
      const [r, g, b] = color.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
      const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      const { width } = element.getBoundingClientRect();
      // WCAG leaves out what is disabled.
      if (!hasText || width <= 1 || !element.checkVisibility({ opacityProperty: true }) || element.closest(':disabled')) continue;
      const back = behind(element);
      const [one, other] = [luminance(over(rgba(getComputedStyle(element).color), back)), luminance(back)];
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (contrast < 4.5) found.push(`${contrast.toFixed(2)}: ${element.outerHTML.slice(0, 120)}`);
    }
    return found;
  });
}

/** Fields and buttons that a screen reader has no name for. */
export function unnamed(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll('button, input, textarea, [tabindex]')]
      .filter((element) => !element.getAttribute('aria-label') && !element.labels?.length && !element.innerText?.trim())
      .map(({ outerHTML }) => outerHTML.slice(0, 100)),
  );
}
