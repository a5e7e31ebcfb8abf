import type { Target } from './architecture.ts';
import { DESCRIPTION, MAINTAINER, type Release, SUMMARY } from './release.ts';

const WIDTH = 76;
/** Debian's libc6 of 2018: what Node 24 was linked against. */
const DEPENDS = 'libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 5.2), systemd';
/** igzip (isal) on containerd's PATH makes unpacking about 1.4 times as fast; unpigz (pigz) is what containerd 1.x looks for. */
const RECOMMENDS = 'isal, pigz, containerd | containerd.io';

/** DEBIAN/control. */
export function debianControl(target: Target, release: Release, size_bytes: number): string {
  const fields = {
    Package: 'layerswarm',
    Version: debianVersion(release),
    Architecture: target.architecture,
    Maintainer: MAINTAINER,
    'Installed-Size': Math.ceil(size_bytes / 1024),
    Depends: DEPENDS,
    Recommends: RECOMMENDS,
    Section: 'admin',
    Priority: 'optional',
    Description: SUMMARY,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}`);
  return `${[...lines, ...paragraphs(DESCRIPTION)].join('\n')}\n`;
}

export function debianVersion({ version, revision }: Release): string {
  return `${version}-${revision}`;
}

/** Debian's own form, with this one version; what changed stands in changelog.gz. */
export function debianChangelog(release: Release): string {
  const date = new Date(release.epoch_s * 1000).toUTCString().replace('GMT', '+0000');
  return `layerswarm (${debianVersion(release)}) unstable; urgency=medium

  * New upstream release ${release.version}, see changelog.gz.

 -- ${MAINTAINER}  ${date}
`;
}

/** Machine-readable (DEP 5). The texts of others stand in NOTICES, which is longer than this form is good for. */
export function debianCopyright(target: Target): string {
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: layerswarm
Comment:
 The package contains Node.js, JavaScript packages${target.addon === undefined ? '' : ', a native addon made of Rust crates'} and their
 parts under licences of their own. All of them are listed, with their licences
 in full, in /usr/share/doc/layerswarm/NOTICES.

Files: *
Copyright: 2026 the layerswarm authors
License: Apache-2.0

Files: usr/lib/layerswarm/node
Copyright: Node.js contributors and others, see NOTICES
License: Expat
 See /usr/share/doc/layerswarm/NOTICES.

License: Apache-2.0
 On Debian systems the full text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0. It is also in NOTICES.
`;
}

/** The long description of control: lines that begin with a space, paragraphs parted by " .". */
function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((text, index) => [...(index === 0 ? [] : [' .']), ...wrap(text, ' ')]);
}

/** Words in lines of at most 76 characters, each after `indent`. */
export function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > WIDTH) {
      lines.push(`${indent}${line}`);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, `${indent}${line}`];
}
