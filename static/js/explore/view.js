// What the middle of the page shows: the tabs' panels, the accuracy scale, the sizes of both.

import { $, $$ } from "../dom.js";

/** The heat map under the chart takes what its rows need, at most this share of the panel. */
const HEAT_SHARE = 0.46;
/** Of the height of the screen: a section whose top is above this has begun. */
const MIDDLE = 0.5;

export function wireView(store, { heat }) {
  const panel = $("#v-curves");
  const fit = () => {
    const available = panel.clientHeight * HEAT_SHARE;
    $("#heat").style.height = `${Math.round(heat.wantedHeight(available))}px`;
    store.touch("size");
  };
  const observer = new ResizeObserver(fit);
  for (const id of ["v-curves", "v-heat", "p-view"]) observer.observe($(`#${id}`));
  observer.observe($("#forest"));
  // The line above the chart can take one row or two.
  new ResizeObserver(() => store.touch("size")).observe($(".plotwrap.main"));

  for (const radio of $$("input[name=scale]")) {
    radio.checked = radio.value === store.scale;
    radio.addEventListener("change", () => store.set("scale", radio.value));
  }
  for (const tab of $$("#viewtabs [role=tab]")) {
    new MutationObserver(() => {
      $("#scalebox").hidden = $("#v-curves").hidden;
      store.touch("size");
    }).observe(tab, { attributeFilter: ["aria-selected"] });
  }
  const legends = () => {
    const { family, word, lossName } = store.metric;
    for (const legend of $$(".loss-legend")) {
      family.limits.forEach((limit, index) => {
        const text = String(Number((limit * family.factor).toFixed(4))).replace(/^0/, "");
        legend.children[index].dataset.to = text;
      });
      legend.nextElementSibling.textContent = family.lost;
      legend.parentElement.setAttribute("aria-label",
        `Colour scale: ${lossName.toLowerCase()} of ${word}, ${family.lost}`);
    }
    for (const head of $$("[data-loss-name]")) head.textContent = `${lossName} by layer`;
    $("#heat-large").setAttribute("aria-label", `${lossName} by layer`);
  };
  store.on(["metric"], legends);
  legends();

  // The dock of narrow pages marks the section in the middle of the screen; above all, the first.
  const links = $$(".dock a");
  const mark = () => {
    const begun = links.filter((link) =>
      $(link.hash).getBoundingClientRect().top <= window.innerHeight * MIDDLE);
    const current = begun.at(-1) ?? links[0];
    for (const link of links) {
      if (link === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  const seen = new IntersectionObserver(mark, {
    rootMargin: `${-100 * MIDDLE}% 0px ${-100 * (1 - MIDDLE)}% 0px`,
  });
  for (const link of links) seen.observe($(link.hash));
}
