import type { Secret } from '../ground/secret.ts';

/** What a registry may be shown. `name` says where it was found (file and key, or program) and may be printed; the rest may not. */
export type Credential = { readonly name: string } & (
  | { readonly kind: 'anonymous' }
  /** A user's name is shown to nobody either: tokens are often sent as one. */
  | { readonly kind: 'password'; readonly username: Secret; readonly password: Secret }
  /** What Docker calls an identity token: a refresh token of OAuth 2. */
  | { readonly kind: 'identity_token'; readonly token: Secret }
);

/** No credentials: what public images need, and what everything ends with. */
export const ANONYMOUS: Credential = { kind: 'anonymous', name: 'anonymous' };

/** A credential somebody would have given, and why it is not there. */
export type CredentialProblem = { readonly name: string; readonly why: string };

/** What one place has to say: credentials, best first, and what could not be had. */
export type CredentialAnswer = {
  readonly credentials: readonly Credential[];
  readonly problems: readonly CredentialProblem[];
  /** How long the answer holds, in ms; undefined = as long as it is kept anyway. */
  readonly lasts_ms?: number | undefined;
};

export const NO_CREDENTIALS: CredentialAnswer = { credentials: [], problems: [] };
