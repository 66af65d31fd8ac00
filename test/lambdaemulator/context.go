package lambdaemulator

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// dynamoParameters are the parameters of a DynamoDB call that its condition keys are made
// from.
type dynamoParameters struct {
	Key, Item map[string]map[string]any
	// Key conditions of a query, and the expressions that name attributes.
	KeyConditionExpression, ProjectionExpression, UpdateExpression, ConditionExpression, FilterExpression string

	ExpressionAttributeNames  map[string]string
	ExpressionAttributeValues map[string]map[string]any
	Select                    string

	TransactItems []map[string]struct {
		Key, Item map[string]map[string]any
	}
	RequestItems map[string]struct {
		Keys                     []map[string]map[string]any
		ProjectionExpression     string
		ExpressionAttributeNames map[string]string
	}
}

var (
	partitionCondition = regexp.MustCompile(`(#?[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(:[A-Za-z0-9_]+)`)
	expressionWord     = regexp.MustCompile(`[#:]?[A-Za-z_][A-Za-z0-9_]*`)
	expressionKeywords = regexp.MustCompile(`(?i)^(set|remove|add|delete|and|or|not|between|in|if_not_exists|attribute_exists|attribute_not_exists|attribute_type|begins_with|contains|size|list_append)$`)
)

// dynamoContext returns the values of DynamoDB's condition keys (DynamoDB Developer
// Guide, "Using IAM policy conditions for fine-grained access control"). partition is the
// name of the table's or the index's partition key.
func dynamoContext(operation string, body []byte, table, partition string) map[string][]string {
	var p dynamoParameters
	if json.Unmarshal(body, &p) != nil {
		return nil // IAM sees no key
	}
	var keys, attributes []string
	named := func(expression string, names map[string]string) {
		for _, word := range expressionWord.FindAllString(expression, -1) {
			switch {
			case word[0] == ':' || expressionKeywords.MatchString(word):
			case word[0] == '#':
				attributes = append(attributes, names[word])
			default:
				attributes = append(attributes, word)
			}
		}
	}
	item := func(values map[string]map[string]any) {
		for name, value := range values {
			attributes = append(attributes, name)
			if text, ok := value["S"].(string); ok && name == partition {
				keys = append(keys, text)
			}
		}
	}
	item(p.Key)
	item(p.Item)
	for _, one := range p.TransactItems {
		for _, of := range one {
			item(of.Key)
			item(of.Item)
		}
	}
	projected := p.ProjectionExpression != ""
	name, _, _ := strings.Cut(strings.TrimPrefix(table, "table/"), "/")
	if batch, ok := p.RequestItems[name]; ok {
		for _, key := range batch.Keys {
			item(key)
		}
		projected = batch.ProjectionExpression != ""
		named(batch.ProjectionExpression, batch.ExpressionAttributeNames)
	}
	if m := partitionCondition.FindStringSubmatch(p.KeyConditionExpression); m != nil {
		attribute := m[1]
		if attribute[0] == '#' {
			attribute = p.ExpressionAttributeNames[attribute]
		}
		for _, value := range p.ExpressionAttributeValues[m[2]] {
			if text, ok := value.(string); ok && attribute == partition {
				keys = append(keys, text)
			}
		}
	}
	for _, expression := range []string{p.ProjectionExpression, p.UpdateExpression, p.ConditionExpression, p.FilterExpression, p.KeyConditionExpression} {
		named(expression, p.ExpressionAttributeNames)
	}
	slices.Sort(attributes)
	slices.Sort(keys)
	context := map[string][]string{"dynamodb:LeadingKeys": slices.Compact(keys), "dynamodb:Attributes": slices.Compact(attributes)}
	switch operation {
	case "GetItem", "BatchGetItem", "Query", "Scan":
		context["dynamodb:Select"] = []string{"ALL_ATTRIBUTES"}
		if projected {
			context["dynamodb:Select"] = []string{"SPECIFIC_ATTRIBUTES"}
		} else if p.Select != "" {
			context["dynamodb:Select"] = []string{p.Select}
		}
	}
	return context
}
