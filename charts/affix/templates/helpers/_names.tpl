{{/* The chart's name, or nameOverride. */}}
{{- define "affix.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all object names, short enough for the longest suffix. */}}
{{- define "affix.fullname" -}}
{{- $name := include "affix.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The namespace of all objects. */}}
{{- define "affix.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* The name of a component's ServiceAccount. */}}
{{- define "affix.serviceAccountName" -}}
{{- $values := index .root.Values .component }}
{{- if $values.serviceAccount.name }}
{{- $values.serviceAccount.name }}
{{- else if $values.serviceAccount.create }}
{{- printf "%s-%s" (include "affix.fullname" .root) .component }}
{{- else -}}
default
{{- end }}
{{- end }}

{{/* The name of the Lease for leader election. With a label selector, affix appends a hash of it. */}}
{{- define "affix.lease" -}}
{{- $name := printf "%s-controller" (include "affix.fullname" .) }}
{{- if .Values.watchLabelSelector }}
{{- printf "%s-%s" $name (.Values.watchLabelSelector | sha256sum | trunc 8) }}
{{- else }}
{{- $name }}
{{- end }}
{{- end }}

{{/* The ConfigMap with the certificates of private authorities; empty without any. */}}
{{- define "affix.caConfigMap" -}}
{{- if .Values.registries.caBundleConfigMap }}
{{- .Values.registries.caBundleConfigMap }}
{{- else if .Values.registries.caBundle }}
{{- include "affix.fullname" . }}-ca
{{- end }}
{{- end }}

{{/* The image. A registry replaces the first part of the repository if that part is a host. */}}
{{- define "affix.image" -}}
{{- $repository := .Values.image.repository }}
{{- with .Values.image.registry | default (.Values.global | default dict).imageRegistry }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^[^/]*[.:][^/]*/|^localhost/" $repository "") }}
{{- end }}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" $repository .digest }}
{{- else }}
{{- printf "%s:%s" $repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pull secrets of all pods. */}}
{{- define "affix.imagePullSecrets" -}}
{{- $secrets := .Values.imagePullSecrets | default list }}
{{- range (.Values.global | default dict).imagePullSecrets }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with $secrets | uniq }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* A duration, such as 1m30s, in milliseconds. */}}
{{- define "affix.milliseconds" -}}
{{- $total := 0.0 }}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" . -1 }}
{{- $total = addf $total (mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[a-z]+$" .))) }}
{{- end }}
{{- $total | int64 }}
{{- end }}

{{/* The command that removes affix's finalizer from the resources that this release reconciles. Other finalizers stay. */}}
{{- define "affix.releaseFinalizers" -}}
{{- $template := `{{range .items}}{{$m := .metadata}}{{range $i, $f := $m.finalizers}}{{if eq $f "affix.dev/finalizer"}}{{$m.namespace}} {{$m.name}} {{$i}}{{"\n"}}{{end}}{{end}}{{end}}` }}
{{- $selector := ternary (printf " --selector '%s'" .Values.watchLabelSelector) "" (ne .Values.watchLabelSelector "") }}
{{- $get := printf "kubectl get imageattachments%s --output go-template='%s'" $selector $template }}
{{- if .Values.watchNamespaces }}
{{- printf "for n in %s; do %s --namespace $n; done" (join " " .Values.watchNamespaces) $get }}
{{- else }}
{{- printf "%s --all-namespaces" $get }}
{{- end }} | while read -r n name i; do kubectl patch imageattachment $name --namespace $n --type json --patch "[{\"op\":\"remove\",\"path\":\"/metadata/finalizers/$i\"}]"; done
{{- end }}
