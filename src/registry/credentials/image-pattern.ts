/** What a pattern is compared with. */
export type ImagePlace = { readonly registry: string; readonly repository: string };

/**
 * The kubelet's way to name images, in config.json and in `matchImages`: `host[:port][/path]`, where each part of the host between dots
 * may hold `*`. Host and port must agree (no port in the pattern = no port in the image), and the path is a prefix by whole parts.
 */
export function matchesImage(pattern: string, { registry, repository }: ImagePlace): boolean {
  const plain = pattern.replace(/^https?:\/\//, '');
  const slash = plain.indexOf('/');
  const host = slash < 0 ? plain : plain.slice(0, slash);
  const path = slash < 0 ? '' : plain.slice(slash + 1).replace(/\/+$/, '');
  if (path !== '' && repository !== path && !repository.startsWith(`${path}/`)) return false;
  const [wanted, wanted_port] = partsOf(host);
  const [given, port] = partsOf(registry);
  return (
    wanted_port === port &&
    wanted.length === given.length &&
    wanted.every((part, i) => matchesPart(part, given[i] ?? ''))
  );
}

function partsOf(host: string): [parts: readonly string[], port: string] {
  const port = /:(\d+)$/.exec(host)?.[1] ?? '';
  return [(port === '' ? host : host.slice(0, -port.length - 1)).split('.'), port];
}

/** Parts are short and stars few, so comparing piece by piece costs nothing; a regular expression of somebody's making might. */
function matchesPart(pattern: string, text: string): boolean {
  const pieces = pattern.split('*');
  const [first = '', ...rest] = pieces;
  if (rest.length === 0) return pattern === text;
  if (!text.startsWith(first)) return false;
  let at = first.length;
  const last = rest.pop() ?? '';
  for (const piece of rest) {
    const found = text.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return text.length - last.length >= at && text.endsWith(last);
}
