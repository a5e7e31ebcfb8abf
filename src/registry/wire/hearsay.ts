import { lookup as systemLookup, type LookupAddress } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { DaemonError } from '../../base/errors.ts';
import { isLoopback } from '../places/endpoint.ts';

/**
 * Addresses that nobody else's word makes us ask: what answers there trusts whoever stands on this host. Link-local ones hold the metadata
 * services of clouds, which hand out the host's own credentials; the single ones are such services elsewhere. Private networks are allowed: registries of a
 * site redirect to storage there.
 */
const FORBIDDEN = new BlockList();
FORBIDDEN.addSubnet('0.0.0.0', 8, 'ipv4');
FORBIDDEN.addSubnet('169.254.0.0', 16, 'ipv4');
FORBIDDEN.addSubnet('224.0.0.0', 3, 'ipv4');
FORBIDDEN.addAddress('100.100.100.200', 'ipv4');
FORBIDDEN.addAddress('192.0.0.192', 'ipv4');
FORBIDDEN.addAddress('::', 'ipv6');
FORBIDDEN.addSubnet('fe80::', 10, 'ipv6');
FORBIDDEN.addSubnet('ff00::', 8, 'ipv6');
FORBIDDEN.addAddress('fd00:ec2::254', 'ipv6');

/**
 * The address that a redirect or a challenge of `from` names, when it may be asked: HTTP or HTTPS, never plain after TLS, without a user in
 * it, not on loopback unless `from` is, and no address that is forbidden. `protocol_error` says which of these it is; a name is looked at
 * again when it is resolved (`guardedLookup`).
 */
export function hearsayUrl(text: string, from: URL): URL {
  const url = URL.parse(text, from.href);
  const refuse = (why: string): DaemonError =>
    new DaemonError('protocol_error', `${from.host} names ${url?.host ?? 'an address'} ${why}`, {
      host: from.host,
    });
  if (url === null) throw refuse('that is none');
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('that is not of HTTP');
  if (url.origin === from.origin) return url;
  if (from.protocol === 'https:' && url.protocol === 'http:') throw refuse('without TLS');
  if (url.username !== '' || url.password !== '') throw refuse('with a user in it');
  const host = bare(url.hostname);
  if (isIP(host) !== 0 && !mayBeAsked(host, isLocal(from))) throw refuse('which is not asked');
  if (host === 'localhost' && !isLocal(from)) throw refuse('which is not asked');
  return url;
}

/** True when a server on loopback named the address: then it may name loopback too. */
export function isLocal(url: URL): boolean {
  return isLoopback(bare(url.hostname));
}

/** Resolves names that were heard of, without the addresses that may not be asked; none left = `ENOTFOUND`. */
export function guardedLookup(with_loopback: boolean): LookupFunction {
  return (hostname, options, callback) => {
    systemLookup(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
      if (error !== null) {
        callback(error, []);
        return;
      }
      const good = addresses.filter(({ address }) => mayBeAsked(address, with_loopback));
      const [first] = good;
      if (first === undefined) {
        const refused = new Error(`${hostname} has no address that is asked`);
        callback(Object.assign(refused, { code: 'ENOTFOUND' }), []);
      } else if (options.all === true) callback(null, good);
      else callback(null, first.address, first.family);
    });
  };
}

function mayBeAsked(address: string, with_loopback: boolean): boolean {
  if (FORBIDDEN.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')) return false;
  return with_loopback || !isLoopback(address);
}

function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '');
}
