import { randomUUID } from 'node:crypto';
import type { Asked, Behaviour } from './registry-server.ts';
import { RegistryServer } from './registry-server.ts';

/** Who may have a token. */
type Accounts = {
  /** Values of the Authorization header, or of `refresh_token`. */
  readonly accepted: readonly string[];
  readonly anonymous?: boolean;
  readonly expires_in?: number;
};

/**
 * The token server of the distribution spec, on a port of its own: it hands out random tokens to those it knows, and `guard` makes a registry
 * accept nothing else.
 */
export class TokenServer implements AsyncDisposable {
  readonly issued: string[] = [];
  readonly revoked = new Set<string>();
  accounts: Accounts;
  readonly #server: RegistryServer;

  private constructor(server: RegistryServer, accounts: Accounts) {
    this.#server = server;
    this.accounts = accounts;
    server.behaviour = (asked, response) => {
      const credential = new URLSearchParams(asked.body).get('refresh_token');
      const shown = credential ?? asked.headers.authorization;
      const { accepted, anonymous = false, expires_in } = this.accounts;
      if (shown === undefined ? !anonymous : !accepted.includes(shown)) {
        response.writeHead(401).end(JSON.stringify({ details: shown }));
        return true;
      }
      const token = `tok-${randomUUID()}`;
      this.issued.push(token);
      response.end(JSON.stringify({ token, ...(expires_in !== undefined && { expires_in }) }));
      return true;
    };
  }

  static async start(accounts: Accounts): Promise<TokenServer> {
    return new TokenServer(await RegistryServer.start(), accounts);
  }

  /** What it was asked, in order. */
  get asked(): readonly Asked[] {
    return this.#server.asked;
  }

  get realm(): string {
    return `http://${this.#server.address}/token`;
  }

  /** Lets requests with a token of ours pass, and challenges the others. */
  guard(): Behaviour {
    return ({ headers, url }, response) => {
      const token = headers.authorization?.replace(/^Bearer /, '') ?? '';
      if (this.issued.includes(token) && !this.revoked.has(token)) return false;
      const repository = url.split('/').slice(2, -2).join('/');
      const challenge = `Bearer realm="${this.realm}",service="test registry",scope="repository:${repository}:pull"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end('{}');
      return true;
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}
