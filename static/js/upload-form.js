// What has to be said about a file beside the file: which fields a kind of file has, and what is
// wrong with what was typed, before anything is sent. No DOM.

export const ARCHITECTURES = [
  "timm:resnet18", "timm:resnet50", "timm:mobilenetv3_small_100", "timm:efficientnet_b0",
  "timm:convnext_tiny", "timm:vit_tiny_patch16_224", "timm:vit_base_patch16_224",
  "transformers:bert", "transformers:distilbert", "transformers:roberta", "transformers:gpt2",
  "transformers:vit",
];
export const TASKS = [
  ["classification", "classification"],
  ["regression", "regression: numbers"],
  ["language-modelling", "language modelling: next tokens"],
];
export const PRESETS = [
  ["imagenet", "ImageNet mean and deviation"],
  ["cifar10", "CIFAR-10 mean and deviation"],
  ["clip", "CLIP mean and deviation"],
  ["half", "−1 to 1"],
  ["none", "0 to 1"],
];
const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}:[A-Za-z0-9][A-Za-z0-9_./-]{0,199}$/;

export const endingOf = (fileName) => fileName.toLowerCase().split(".").pop();

/** @returns {"weights" | "images" | "table" | "arrays" | null} null: nothing has to be said */
export function formOf(kind, fileName) {
  const ending = endingOf(fileName);
  if (kind === "model") return ["safetensors", "pth", "pt"].includes(ending) ? "weights" : null;
  if (ending === "zip") return "images";
  if (["csv", "parquet"].includes(ending)) return "table";
  return ["npz", "safetensors"].includes(ending) ? "arrays" : null;
}

/** Whether a file can be sent without being asked about: everything has a usual answer. */
export const speaksForItself = (form) => form === null || form === "arrays";

/** A field of the form that can't be meant; `field` is the name of its input. */
export class WrongField extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

const words = (text) =>
  text
    .split(",")
    .map((word) => word.trim())
    .filter(Boolean);

function parseArguments(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new WrongField("args", 'The arguments are not JSON. Write them like {"num_classes": 10}.');
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new WrongField("args", 'The arguments have to be in braces, like {"num_classes": 10}.');
  }
  return value;
}

/**
 * The text fields of the upload.
 * @param {string | null} form of formOf
 * @param {Record<string, string>} said by name of the input; what was left out is ""
 * @param {string[]} columns of the table, as far as the browser could read them
 * @returns {Record<string, string>}
 * @throws {WrongField} with a sentence
 */
export function fieldsOf(form, said, columns = []) {
  const given = (name) => (said[name] ?? "").trim();
  if (form === "weights") return weightsFields(given);
  const task = given("task") || "classification";
  if (form === "images") return { task, ...asOptions(imageOptions(task, given)) };
  if (form === "table") return { task, ...asOptions(tableOptions(task, given, columns)) };
  const options = {};
  if (task === "classification" && given("labels")) options.labels = given("labels");
  return { task, ...asOptions(options) };
}

const asOptions = (options) =>
  Object.keys(options).length ? { options: JSON.stringify(options) } : {};

function weightsFields(given) {
  const architecture = given("architecture");
  const args = given("args");
  if (!architecture) {
    if (args) {
      throw new WrongField("architecture", "The arguments need an architecture: name it, or leave both empty.");
    }
    return {};
  }
  if (!NAME.test(architecture)) {
    throw new WrongField(
      "architecture",
      "Write where it comes from, a colon, and its name: timm:resnet18 or transformers:bert.",
    );
  }
  const parsed = args ? parseArguments(args) : {};
  return {
    architecture,
    ...(Object.keys(parsed).length ? { architecture_args: JSON.stringify(parsed) } : {}),
  };
}

function imageOptions(task, given) {
  if (task !== "classification") {
    throw new WrongField("task", "Images in folders are labelled by their folders: that is classification. Bring arrays (.npz) for anything else.");
  }
  const options = {};
  if (given("preset")) options.preset = given("preset");
  if (given("size")) {
    const size = Number(given("size"));
    if (!Number.isInteger(size) || size < 1 || size > 4096) {
      throw new WrongField("size", "The size is a whole number of pixels from 1 to 4,096.");
    }
    options.size = size;
  }
  return options;
}

function tableOptions(task, given, columns) {
  if (task === "language-modelling") {
    throw new WrongField("task", "A table holds no rows of tokens. Choose classification or regression, or bring arrays (.npz).");
  }
  const options = {};
  const target = given("target");
  if (!target && columns.length) {
    throw new WrongField("target", "Name the column that the network predicts.");
  }
  const known = (name, field) => {
    if (columns.length && !columns.includes(name)) {
      throw new WrongField(field, `There is no column “${name}” in the first row of the file.`);
    }
    return name;
  };
  if (target) options.target = known(target, "target");
  for (const field of ["ignore", "categorical"]) {
    const names = words(given(field));
    if (names.includes(target)) {
      throw new WrongField(field, `“${target}” is what is predicted; it can't be here as well.`);
    }
    if (names.length) options[field] = names.map((name) => known(name, field));
  }
  return options;
}

/** What a column that is to be predicted is usually called; what is left empty is looked for there. */
const TARGETS = ["target", "label", "labels", "y", "class"];

/** The column that is probably meant: one of those names, or else the last. */
export const likelyTarget = (columns) =>
  columns.find((name) => TARGETS.includes(name.toLowerCase())) ?? columns.at(-1) ?? "";

/** The names in the first row of a CSV, whatever separates them; [] when it does not look like one. */
export function columnsOf(text) {
  const line = text.replace(/^\ufeff/, "").split(/\r?\n/, 1)[0];
  const counts = [",", ";", "\t", "|"].map((mark) => [line.split(mark).length, mark]);
  const [parts, mark] = counts.reduce((a, b) => (b[0] > a[0] ? b : a));
  if (parts < 2) return [];
  const names = [];
  let name = "";
  let quoted = false;
  for (let at = 0; at < line.length; at += 1) {
    const letter = line[at];
    if (letter === '"' && quoted && line[at + 1] === '"') {
      name += letter;
      at += 1;
    } else if (letter === '"') quoted = !quoted;
    else if (letter === mark && !quoted) {
      names.push(name.trim());
      name = "";
    } else name += letter;
  }
  return [...names, name.trim()];
}
