/** The namespace in the calls of our own commands, which look at blobs as containerd does and are not to be taken for it. */
export const OWN_NAMESPACE = 'layerswarm-command';
