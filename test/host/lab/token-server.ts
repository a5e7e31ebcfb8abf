// A token server as registries use them (distribution spec, token authentication): JWTs signed by a key that the registry trusts. Run as a
// process of its own: token-server.ts PORT ISSUER KEY CERT USER:PASSWORD
import { createSign, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [port = '', issuer = '', key_file = '', cert_file = '', account = ''] = process.argv.slice(2);
const key = readFileSync(key_file, 'utf8');
const certificate = readFileSync(cert_file, 'utf8').replace(/-----[^-]+-----|\s/g, '');
/** Tokens last this long, in seconds. */
const LASTS_S = 300;

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

function tokenFor(subject: string, service: string, scopes: readonly string[]): string {
  const now_s = Math.floor(Date.now() / 1000);
  const access = scopes.flatMap((scope) => {
    const match = /^repository:([^:]+):/.exec(scope);
    return match === null ? [] : [{ type: 'repository', name: match[1], actions: ['pull'] }];
  });
  const times = { iat: now_s, nbf: now_s - 5, exp: now_s + LASTS_S };
  const claims = { iss: issuer, sub: subject, aud: service, jti: randomUUID(), ...times, access };
  const signed = `${part({ typ: 'JWT', alg: 'RS256', x5c: [certificate] })}.${part(claims)}`;
  return `${signed}.${createSign('RSA-SHA256').update(signed).sign(key).toString('base64url')}`;
}

createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://token');
  const { authorization = '' } = request.headers;
  const shown = Buffer.from(authorization.replace(/^Basic /, ''), 'base64').toString('utf8');
  process.stdout.write(`${request.method ?? ''} ${url.pathname} ${authorization.split(' ')[0]!}\n`);
  if (shown !== account) {
    response.writeHead(401, { 'content-type': 'application/json' }).end('{"details":"no"}');
    return;
  }
  const service = url.searchParams.get('service') ?? '';
  const token = tokenFor('someone', service, url.searchParams.getAll('scope'));
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ token, expires_in: LASTS_S }));
}).listen(Number(port), '127.0.0.1');
