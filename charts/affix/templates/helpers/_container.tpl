{{/* The registry flags of both components. */}}
{{- define "affix.registryArgs" -}}
{{- with .Values.registries }}
- --insecure-allow-http={{ .allowHttp }}
- --allow-loopback={{ .allowLoopback }}
- --deny-private-networks={{ .denyPrivateNetworks }}
- --max-requests-per-registry={{ .maxRequestsPerRegistry }}
{{- with .allowed }}
- --allowed-registries={{ join "," . }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The arguments of a component: (dict "command" … "own" (list …) "extra" (list …)). A flag in "extra" replaces the chart's own. A flag with the
name of an object is two arguments, so that kustomize can rename the object: it replaces whole values only.
*/}}
{{- define "affix.args" -}}
{{- $replaced := list }}
{{- range .extra }}
{{- $replaced = append $replaced (splitList "=" . | first) }}
{{- end }}
{{- $args := list .command }}
{{- range .own }}
{{- $flag := splitList "=" . | first }}
{{- if not (has $flag $replaced) }}
{{- $value := trimPrefix (printf "%s=" $flag) . }}
{{- if and $value (regexMatch "^--(leader-election|owner-deployment|certificate-secret|service|validating-webhook-configuration|mutating-webhook-configuration)(-name)?$" $flag) }}
{{- $args = concat $args (list $flag $value) }}
{{- else }}
{{- $args = append $args . }}
{{- end }}
{{- end }}
{{- end }}
{{- concat $args (.extra | default list) | toYaml }}
{{- end }}

{{/* The environment of both components. A variable in extraEnv replaces the chart's own, so that no name appears twice. */}}
{{- define "affix.env" -}}
{{- $values := index .root.Values .component }}
{{- $namespace := ternary "RUNTIME_NAMESPACE" "POD_NAMESPACE" (eq .component "controller") }}
{{- $field := dict "fieldRef" (dict "apiVersion" "v1" "fieldPath" "metadata.namespace") }}
{{- $all := list (dict "name" "RUST_LOG" "value" .root.Values.log.level) (dict "name" $namespace "valueFrom" $field) }}
{{- $proxy := .root.Values.proxy }}
{{- range $name, $value := dict "HTTP_PROXY" $proxy.http "HTTPS_PROXY" $proxy.https "NO_PROXY" $proxy.noProxy }}
{{- if $value }}
{{- $all = append $all (dict "name" $name "value" $value) }}
{{- end }}
{{- end }}
{{- if include "affix.caConfigMap" .root }}
{{- $all = append $all (dict "name" "SSL_CERT_FILE" "value" "/etc/ssl/certs/ca-certificates.crt") }}
{{- $all = append $all (dict "name" "SSL_CERT_DIR" "value" "/etc/affix/ca") }}
{{- end }}
{{- range $values.extraEnv }}
{{- $variable := deepCopy . }}
{{- with ($variable.valueFrom | default dict).fieldRef }}
{{- if not .apiVersion }}
{{- $_ := set . "apiVersion" "v1" }}
{{- end }}
{{- end }}
{{- $all = append $all $variable }}
{{- end }}
{{- $names := list }}
{{- $byName := dict }}
{{- range $all }}
{{- $names = append $names .name }}
{{- $_ := set $byName .name . }}
{{- end }}
{{- range $names | uniq }}
- {{ get $byName . | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{/* The probes of both components. */}}
{{- define "affix.probes" -}}
{{- $values := index .root.Values .component }}
{{- range $probe, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{ $probe }}:
  httpGet: {path: {{ $path }}, port: health}
  {{- with omit (index $values $probe | default dict) "httpGet" "exec" "tcpSocket" "grpc" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The end of a component's container, with "mounts" of the component: resources, security context and volume mounts. */}}
{{- define "affix.containerRest" -}}
{{- $values := index .root.Values .component }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- toYaml $values.containerSecurityContext | nindent 2 }}
{{- $mounts := .mounts | default list }}
{{- if include "affix.caConfigMap" .root }}
{{- $mounts = append $mounts (dict "name" "ca" "mountPath" "/etc/affix/ca" "readOnly" true) }}
{{- end }}
{{- with concat $mounts ($values.extraVolumeMounts | default list) }}
volumeMounts:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
