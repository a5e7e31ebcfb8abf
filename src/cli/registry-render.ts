import type { CheckedEndpoint, CheckReport } from '../registry/check.ts';
import { humanBytes } from './render.ts';

const LABEL_WIDTH = 14;

/** The report for people: where, with what, and what answered. Names of servers and their words are kept to one line of printable text. */
export function renderCheck(image: string, report: CheckReport): string {
  const { endpoints, problems, manifest, layer, range, failed, origins } = report;
  const lines = [line('image', image)];
  if (origins.length > 1 || image.startsWith('sha256:')) {
    lines.push(...origins.map((o, i) => line(`place ${i + 1}`, `${o.registry}/${o.repository}`)));
  }
  for (const [i, endpoint] of endpoints.entries()) lines.push(...endpointLines(endpoint, i + 1));
  lines.push(...problems.map((problem) => line('problem', problem)));
  lines.push(...failed.map(({ code, message }) => line('failed', `${message} [${code}]`)));
  if (manifest !== undefined) {
    lines.push(line('manifest', `${manifest.digest} ${manifest.media_type}`), from(manifest));
  }
  if (layer !== undefined) {
    lines.push(line('first layer', `${layer.digest} ${humanBytes(layer.size_bytes)}`));
  }
  if (range !== undefined) {
    const bytes = humanBytes(range.bytes);
    const how = range.supported
      ? `yes: its first ${bytes} in ${range.elapsed_ms} ms`
      : `no: the server ignores Range and sends the whole layer; its first ${bytes} in ${range.elapsed_ms} ms`;
    lines.push(line('ranges', how), from(range));
    if (range.redirected_to !== undefined) {
      lines.push(line('', `redirected to ${range.redirected_to}, which saw no credentials`));
    }
  }
  const limits = Object.entries(report.rate_limit).map(([name, value]) => `${name} ${value}`);
  if (limits.length > 0) lines.push(line('rate limit', limits.join(', ')));
  return `${lines.join('\n')}\n`;
}

function endpointLines(endpoint: CheckedEndpoint, number: number): string[] {
  const { url, told_by, may, ca, client, headers, credentials, problems } = endpoint;
  const what = [
    ...(endpoint.mirror ? [`for ${endpoint.registry}`] : []),
    ...(may.length === 2 ? [] : [may.length === 0 ? 'asked for nothing' : `${may.join()} only`]),
  ];
  const trust = [
    ...ca.map((file) => `CA ${file}`),
    ...client.map(({ cert, key }) => `client certificate ${cert}, key ${key}`),
    ...(endpoint.skip_verify ? ['its certificate is not verified'] : []),
    ...(endpoint.plain_fallback ? ['plain HTTP when it speaks no TLS'] : []),
    ...(headers.length > 0 ? [`headers ${headers.join(', ')}`] : []),
  ];
  return [
    line(`endpoint ${number}`, [url, ...what].join(', ')),
    line('', `said by: ${told_by}`),
    ...trust.map((text) => line('', text)),
    line('', `credentials, if it asks: ${credentials.join('; ')}`),
    ...problems.map((problem) => line('', `cannot be used: ${problem}`)),
  ];
}

function from(answer: { readonly endpoint: string; readonly credential: string }): string {
  return line('', `from ${answer.endpoint}, shown: ${answer.credential}`);
}

function line(label: string, text: string): string {
  return `${label.padEnd(LABEL_WIDTH)}${text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '?')}`.trimEnd();
}
