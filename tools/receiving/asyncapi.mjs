// Parses an AsyncAPI document with the official parser. It prints each error, and exits with
// 1 if there is one.
import { readFileSync } from 'node:fs';
import { Parser, DiagnosticSeverity } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'));
const errors = diagnostics.filter((d) => d.severity <= DiagnosticSeverity.Warning);
for (const d of errors) console.log(`${d.code}: ${d.message} (${d.path.join('.')})`);
if (!document || errors.length > 0) process.exit(1);
console.log(`${document.channels().all().length} channels, ${document.messages().all().length} messages`);
