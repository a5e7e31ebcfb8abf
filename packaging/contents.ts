import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { renderReference } from '../src/config/reference.ts';
import type { Target } from './architecture.ts';
import { commandTree } from './command-tree.ts';
import { bashCompletion, fishCompletion, zshCompletion } from './completions.ts';
import { debianChangelog, debianCopyright } from './debian-texts.ts';
import type { NodeRuntime } from './node-runtime.ts';
import { renderNotices } from './notices.ts';
import type { Metafile } from './npm-notices.ts';
import { programFiles } from './program-files.ts';
import type { Release } from './release.ts';
import type { StagedFile } from './staged-tree.ts';

export type ContentSources = {
  readonly root: string;
  /** What `npm run build` made. */
  readonly dist: string;
  readonly target: Target;
  readonly release: Release;
  readonly node: NodeRuntime;
  /** The addon of the target; undefined: without QUIC. */
  readonly addon: string | undefined;
};

/** Every file of the package. What is where, and why it is there, stands here and nowhere else. */
export function packageContents(sources: ContentSources): StagedFile[] {
  const { root, dist, target, release, node, addon } = sources;
  const text = (path: string, file: string): StagedFile => ({
    path,
    mode: 0o644,
    content: readFileSync(join(root, file), 'utf8'),
  });
  const made = (path: string, content: string | Buffer): StagedFile => ({
    path,
    mode: 0o644,
    content,
  });
  const packed = (path: string, content: string): StagedFile => made(path, gzip(content));
  const read = (file: string): string => readFileSync(join(root, file), 'utf8');
  const tree = commandTree();
  const metafile = JSON.parse(readFileSync(join(dist, 'meta.json'), 'utf8')) as Metafile;
  const tcp_only = addon === undefined ? read('packaging/host/config-tcp.toml') : '';
  const doc = '/usr/share/doc/layerswarm';
  return [
    { ...text('/usr/bin/layerswarm', 'packaging/host/launcher.sh'), mode: 0o755 },
    { path: '/usr/lib/layerswarm/node', mode: 0o755, content: { copy_of: node.program } },
    ...programFiles(dist, { version: release.version, addon }),
    text('/usr/lib/systemd/system/layerswarm.service', 'systemd/layerswarm.service'),
    text('/usr/lib/systemd/system/layerswarm.socket', 'systemd/layerswarm.socket'),
    text('/usr/lib/sysctl.d/50-layerswarm.conf', 'packaging/host/50-layerswarm.conf'),
    // Short, so that it need not change with every version: dpkg asks about a configuration file that both sides changed, and
    // setup changes it on every host.
    {
      ...made('/etc/layerswarm/config.toml', read('packaging/host/config.toml') + tcp_only),
      configuration: true,
    },
    {
      ...text('/etc/ufw/applications.d/layerswarm', 'packaging/host/ufw-profile'),
      configuration: true,
    },
    text('/usr/lib/firewalld/services/layerswarm.xml', 'packaging/host/firewalld-service.xml'),
    made('/usr/share/bash-completion/completions/layerswarm', bashCompletion(tree)),
    {
      ...made('/usr/share/zsh/vendor-completions/_layerswarm', zshCompletion(tree)),
      rpm_path: '/usr/share/zsh/site-functions/_layerswarm',
    },
    made('/usr/share/fish/vendor_completions.d/layerswarm.fish', fishCompletion(tree)),
    packed('/usr/share/man/man1/layerswarm.1.gz', read('packaging/man/layerswarm.1')),
    packed('/usr/share/man/man5/layerswarm.toml.5.gz', read('packaging/man/layerswarm.toml.5')),
    made(`${doc}/config.toml`, renderReference()),
    made(`${doc}/copyright`, debianCopyright(target)),
    made(
      `${doc}/NOTICES`,
      renderNotices({
        root,
        metafile,
        node: { version: target.node.version, licence: node.licence },
        addon,
      }),
    ),
    packed(`${doc}/changelog.gz`, read('CHANGELOG.md')),
    { ...packed(`${doc}/changelog.Debian.gz`, debianChangelog(release)), debian_only: true },
    {
      ...text('/usr/share/lintian/overrides/layerswarm', 'packaging/host/lintian-overrides'),
      debian_only: true,
    },
  ];
}

/** Without a time and a name in its header. */
function gzip(text: string): Buffer {
  return gzipSync(text, { level: 9 });
}
