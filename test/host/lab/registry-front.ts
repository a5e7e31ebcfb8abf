// What stands before real registries: nginx (Debian's) with TLS of an own CA, authentication, limits, redirects to storage.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DebianTools } from './debian-packages.ts';
import type { LabHost } from './host.ts';
import type { LabProcess } from './process.ts';
import { runCommand } from './run-command.ts';

/** One server of nginx: a port with TLS, and lines of its own for blobs and for everything. */
export interface FrontServer {
  readonly port: number;
  /** Where requests go; default: the lab's registry. */
  readonly upstream?: string;
  /** Directives for every request. */
  readonly all?: string;
  /** Directives for blobs, in place of passing the request on when they answer themselves. */
  readonly blobs?: string;
}

/** Files of an own CA, and of a server and a client that it vouches for. */
export interface LabCertificates {
  readonly ca: string;
  readonly server: { readonly cert: string; readonly key: string };
  readonly client: { readonly cert: string; readonly key: string };
}

/** Makes a CA in `dir`, a certificate for `addresses`, and one for a client. */
export async function labCertificates(
  dir: string,
  addresses: readonly string[],
): Promise<LabCertificates> {
  const at = (name: string): string => join(dir, name);
  const openssl = (...args: string[]) => runCommand(['openssl', ...args], { cwd: dir });
  const fresh = ['req', '-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  await openssl(...fresh, '-x509', '-subj', '/CN=lab CA', '-keyout', 'ca.key', '-out', 'ca.pem');
  const names = `subjectAltName=${addresses.map((address) => `IP:${address}`).join(',')}`;
  for (const name of ['server', 'client']) {
    await openssl(
      ...fresh,
      ...['-x509', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-subj', `/CN=lab ${name}`],
      ...['-addext', names, '-addext', 'basicConstraints=CA:FALSE'],
      ...['-keyout', `${name}.key`, '-out', `${name}.pem`],
    );
  }
  return {
    ca: at('ca.pem'),
    server: { cert: at('server.pem'), key: at('server.key') },
    client: { cert: at('client.pem'), key: at('client.key') },
  };
}

/** nginx on a lab host; its log has a line per request with everything that must not be in it. */
export class RegistryFront implements AsyncDisposable {
  readonly #process: LabProcess;
  readonly log: string;

  private constructor(child: LabProcess, log: string) {
    this.#process = child;
    this.log = log;
  }

  static async start(
    host: LabHost,
    tools: Pick<DebianTools, 'nginx'>,
    options: {
      readonly certificates: LabCertificates;
      readonly upstream: string;
      readonly servers: readonly FrontServer[];
    },
  ): Promise<RegistryFront> {
    const dir = await host.directory('nginx');
    const log = join(dir, 'access.log');
    const file = join(dir, 'nginx.conf');
    await writeFile(file, configuration(dir, options));
    const child = await host.spawn('nginx', [tools.nginx, '-e', 'stderr', '-c', file, '-p', dir]);
    const [first] = options.servers;
    const probe = `exec 3<>/dev/tcp/127.0.0.1/${first!.port}`;
    await child.ready(async () => (await host.tryRun(['bash', '-c', probe])).code === 0, {
      deadline_ms: 10_000,
    });
    return new RegistryFront(child, log);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stop();
  }
}

function configuration(
  dir: string,
  { certificates, upstream, servers }: Parameters<typeof RegistryFront.start>[2],
): string {
  const { ca, server } = certificates;
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${dir}/${name};`)
    .join('\n');
  return `daemon off;
worker_processes 1;
user root;
pid ${dir}/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
${temporary}
log_format seen '$server_port|$request|$status|$http_authorization|$http_x_lab|$http_cookie|$http_range|$ssl_client_s_dn|$connection';
access_log ${dir}/access.log seen;
limit_req_zone $server_port zone=slow:1m rate=1r/m;
ssl_certificate ${server.cert};
ssl_certificate_key ${server.key};
ssl_client_certificate ${ca};
${servers.map((one) => serverBlock(one, upstream)).join('\n')}
}
`;
}

function serverBlock({ port, upstream, all = '', blobs = '' }: FrontServer, usual: string): string {
  const pass = `proxy_pass ${upstream ?? usual}; proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-Proto https;`;
  const answers = /\breturn\b/.test(blobs);
  return `server {
listen ${port} ssl;
${all}
location ~ /blobs/ { ${blobs} ${answers ? '' : pass} }
location / { ${pass} }
}`;
}
