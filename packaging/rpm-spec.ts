import { wrap } from './debian-texts.ts';
import type { PackageOrder } from './deb.ts';
import { maintainerScript } from './maintainer-script.ts';
import { DESCRIPTION, MAINTAINER, type Release, SUMMARY } from './release.ts';
import type { StagedFile } from './staged-tree.ts';

/**
 * Directories of programs that may not be installed (ufw, firewalld, fish, zsh). Owned together with them: rpm leaves a directory
 * behind that no package owns.
 */
const SHARED_DIRECTORIES = [
  '/etc/ufw',
  '/etc/ufw/applications.d',
  '/usr/lib/firewalld',
  '/usr/lib/firewalld/services',
  '/usr/share/fish',
  '/usr/share/fish/vendor_completions.d',
  '/usr/share/zsh',
  '/usr/share/zsh/site-functions',
];

/**
 * The spec. Nothing is built by rpm: the staged tree is copied and listed. Its own steps over binaries are off (stripping and
 * build ids would change or link Node), and dependencies are named by what Node was linked against, not by package names, which
 * differ between distributions. Debian's rpm knows no macros of systemd: the scripts spell everything out.
 */
export function rpmSpec({
  root,
  tree,
  release,
  fast,
}: Pick<PackageOrder, 'root' | 'tree' | 'target' | 'release' | 'fast'>): string {
  const script = (name: string): string => maintainerScript(root, `rpm-${name}`).trimEnd();
  const files = tree.files.filter((file) => file.debian_only !== true).map(fileLine);
  const moved = tree.files.flatMap(({ path, rpm_path }) =>
    rpm_path === undefined
      ? []
      : [`install -D -p -m 0644 %{staged}${path} %{buildroot}${rpm_path}`],
  );
  const directories = [
    '/etc/layerswarm',
    '/usr/lib/layerswarm',
    '/usr/share/doc/layerswarm',
    ...SHARED_DIRECTORIES,
  ];
  const nested = tree.files
    .filter(({ path }) => path.startsWith('/usr/lib/layerswarm/'))
    .flatMap(({ path }) => parents(path, '/usr/lib/layerswarm'));
  return `%global debug_package %{nil}
%global __os_install_post %{nil}
%global _build_id_links none
%global _unpackaged_files_terminate_build 0
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
%global source_date_epoch_from_changelog 0
%global _buildhost layerswarm
%global _binary_payload ${fast ? 'w1.zstdio' : 'w19T2.zstdio'}
Name: layerswarm
Version: ${release.version}
Release: ${release.revision}
Summary: ${SUMMARY[0]?.toUpperCase() ?? ''}${SUMMARY.slice(1)}
License: Apache-2.0
Packager: ${MAINTAINER}
AutoReqProv: no
Requires: libc.so.6(GLIBC_2.28)(64bit)
Requires: libstdc++.so.6(GLIBCXX_3.4.21)(64bit)
Requires: libgcc_s.so.1()(64bit)
Requires: /bin/sh
Requires: systemd
Recommends: (isa-l-tools or isa-l)
Recommends: pigz
Recommends: (containerd.io or containerd)

%description
${DESCRIPTION.map((text) => wrap(text, '').join('\n')).join('\n\n')}

%install
cp -a --reflink=auto %{staged}/. %{buildroot}/
${moved.join('\n')}

%files
${[...new Set([...directories, ...nested])]
  .sort()
  .map((at) => `%dir %attr(0755, root, root) ${at}`)
  .join('\n')}
${files.join('\n')}

%post
${script('post')}

%preun
${script('preun')}

%postun
${script('postun')}

%changelog
* ${changelogDate(release)} ${MAINTAINER} - ${release.version}-${release.revision}
- New upstream release ${release.version}, see changelog.gz.
`;
}

function fileLine(file: StagedFile): string {
  const { mode, configuration } = file;
  const path = file.rpm_path ?? file.path;
  const kind =
    configuration === true
      ? '%config(noreplace) '
      : /\/(copyright|NOTICES)$/.test(path)
        ? '%license '
        : /^\/usr\/share\/(doc|man)\//.test(path)
          ? '%doc '
          : '';
  return `${kind}%attr(0${mode.toString(8)}, root, root) ${path}`;
}

/** The directories between `top` and a file below it. */
function parents(path: string, top: string): string[] {
  const found: string[] = [];
  let at = path.slice(0, path.lastIndexOf('/'));
  while (at.length > top.length) {
    found.push(at);
    at = at.slice(0, at.lastIndexOf('/'));
  }
  return found;
}

/** `Sat Nov 21 2026`. */
function changelogDate({ epoch_s }: Release): string {
  const [day, date, month, year] = new Date(epoch_s * 1000).toUTCString().split(/,? /);
  return [day, month, date, year].join(' ');
}
