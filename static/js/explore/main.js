// The explore page: reads the state, puts its parts together.

import { $, $$, readState } from "../dom.js";
import { onThemeChange } from "../theme.js";
import { toast } from "../toast.js";
import { BestPerLayer } from "./best.js";
import { Chart } from "./chart.js";
import { wireMetric } from "./chooser.js";
import { PerClass } from "./classes.js";
import { wireCriteria } from "./criteria.js";
import { wireDownload } from "./download.js";
import { wireFit } from "./fit.js";
import { Handle } from "./handle.js";
import { Heatmap } from "./heatmap.js";
import { Kpis } from "./kpis.js";
import { LayerTable } from "./layers.js";
import { Measure } from "./measure.js";
import { followNumbers } from "./numbers.js";
import { followPlans } from "./plans.js";
import { Precision } from "./precision.js";
import { followReadout } from "./readout.js";
import { wireRetrain } from "./retrain.js";
import { wireShortcuts } from "./shortcuts.js";
import { followAnalysis, Status } from "./status.js";
import { Store } from "./store.js";
import { wireThresholds } from "./thresholds.js";
import { History } from "./undo.js";
import { followUrl, readUrl } from "./url.js";
import { wireView } from "./view.js";

const AGE = 30_000;

const store = new Store(readState());
const ignored = readUrl(store);
const history = new History(store);

const table = new LayerTable(store, history);
const kpis = new Kpis(store);
const chart = new Chart(store);
new Handle(store, history, chart);
const heat = new Heatmap(store, $("#heat"), { row: [7, 18], title: false });
const largeHeat = new Heatmap(store, $("#heat-large"), { row: [11, 26], title: true });
const measure = new Measure(store);
new Status(store);
new Precision(store);
new PerClass(store);
new BestPerLayer(store);
followReadout(store);
followNumbers(store);
followPlans(store, history);
wireMetric(store);
wireCriteria(store);
wireFit(store);
wireThresholds(store, history);
wireDownload(store);
wireRetrain(store, kpis);
wireShortcuts({ store, history, table, measure });
wireView(store, { heat, largeHeat });
followUrl(store);
followAnalysis(store, measure);

$("#undo").addEventListener("click", () => history.undo());
$("#redo").addEventListener("click", () => history.redo());
history.onChange(({ past, future }) => {
  $("#undo").disabled = past.length === 0;
  $("#redo").disabled = future.length === 0;
});

onThemeChange(() => store.touch("theme"));
setInterval(() => store.touch("clock"), AGE);
for (const link of $$("[data-csv]")) link.href = `/api/analyses/${store.analysis.id}/curves.csv`;
if (ignored.length) {
  toast(ignored.join(" "));
  store.touch("selection");
}
