{{/* The selector labels of a component: (dict "root" . "component" "controller"). */}}
{{- define "affix.selector" -}}
app.kubernetes.io/name: {{ include "affix.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/*
The labels of an object of a component, with optional "labels" of that object. Each key appears once. The selector's labels take precedence,
then those of the object, then commonLabels.
*/}}
{{- define "affix.labels" -}}
{{- $own := include "affix.selector" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $standard := dict "app.kubernetes.io/part-of" "affix" "app.kubernetes.io/version" .root.Chart.AppVersion "helm.sh/chart" $chart }}
{{- merge $own (.labels | default dict) (.root.Values.commonLabels | default dict) $standard | toYaml }}
{{- end }}

{{/*
The metadata of an object: (dict "root" . "component" … "name" …), with optional "namespace", "labels" and "annotations". "cluster" is true
for an object without a namespace.
*/}}
{{- define "affix.metadata" -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ .namespace | default (include "affix.namespace" .root) }}
{{- end }}
labels:
  {{- include "affix.labels" . | nindent 2 }}
{{- with merge dict (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The metadata of a pod template. The selector's labels take precedence. */}}
{{- define "affix.podMetadata" -}}
{{- $values := index .root.Values .component -}}
{{- $labels := merge (include "affix.selector" . | fromYaml) ($values.podLabels | default dict) (.root.Values.commonLabels | default dict) }}
{{- $own := dict "kubectl.kubernetes.io/default-container" .component }}
{{- with .root.Values.registries.caBundle }}
{{- $_ := set $own "affix.dev/ca-bundle" (sha256sum . | trunc 16) }}
{{- end }}
labels:
  {{- toYaml $labels | nindent 2 }}
annotations:
  {{- merge dict ($values.podAnnotations | default dict) (.root.Values.commonAnnotations | default dict) $own | toYaml | nindent 2 }}
{{- end }}

{{/* The IP families of a Service. */}}
{{- define "affix.ipFamilies" -}}
{{- with .Values.services.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.services.ipFamilies }}
ipFamilies:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
